const left = document.getElementById("left");
const end = performance.now() + 1000 * left.dataset.seconds;
const beat = setInterval(() => {
  const seconds = Math.max(0, Math.ceil((end - performance.now()) / 1000));
  left.textContent = Math.floor(seconds / 60) + ":" + String(seconds % 60).padStart(2, "0");
  if (seconds === 0) {
    clearInterval(beat);
    document.forms[0].submit();
  }
}, 250);
