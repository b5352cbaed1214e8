// A page that is served for one walk, where no page of Tolom's does what the walk is about.

import { createServer } from "node:http";

/** Answers every GET with this HTML; what is posted is kept in `posted`. */
export async function serve(html) {
  const posted = [];
  const server = createServer((request, response) => {
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      if (request.method === "POST") posted.push(Buffer.concat(chunks).toString());
      const type = request.headers.accept?.includes("event-stream") ? "text/event-stream" : "text/html";
      response.writeHead(200, { "content-type": `${type}; charset=utf-8`, "cache-control": "no-store" });
      response.end(type === "text/html" ? html : "event: end\ndata: 0\n\n");
    });
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const url = `http://127.0.0.1:${server.address().port}`;
  return { url, posted, close: () => server.close() };
}
