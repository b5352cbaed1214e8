//! The PDF as its readers see it: its words by `pdftotext`, its picture by `pdftoppm`, its code by a decoder that shares
//! nothing with the encoder.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use rqrr::PreparedImage;
use tolom::{config::Config, notify::Locale, services::ensure_packages};

use super::{PUBLIC_URL, receipt};

const POPPLER: [(&str, &str); 2] = [("pdftotext", "poppler-utils"), ("pdftoppm", "poppler-utils")];

/// A file in the folder for test output; kept, so that a person can look at it.
fn kept(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/receipts");
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

/// What a program writes to standard output about a file.
fn run(program: &str, arguments: &[&str], file: &Path, more: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).arg(file).args(more).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{program} finds the file odd");
    output.stdout
}

/// Writes the receipt's PDF where the tools of poppler can read it, for one test.
async fn printed(locale: Locale, test: &str) -> PathBuf {
    ensure_packages(&POPPLER, |step| eprintln!("{step}")).await.unwrap_or_else(|error| panic!("{error}"));
    let file = kept(&format!("{test}-{locale}.pdf"));
    std::fs::write(&file, receipt(42, locale).pdf(&Config::defaults().operator, PUBLIC_URL).unwrap()).unwrap();
    file
}

/// A grey picture: its width, and its dots from the top left.
struct Picture {
    width: usize,
    dots: Vec<u8>,
}

/// Reads what `pdftoppm -gray` writes: a binary PGM without comments, of 256 greys.
fn pgm(bytes: &[u8]) -> Picture {
    let mut rest = bytes;
    let mut word = || {
        let end = rest.iter().position(u8::is_ascii_whitespace).unwrap();
        let (word, after) = rest.split_at(end);
        rest = &after[1..];
        std::str::from_utf8(word).unwrap().to_owned()
    };
    let [magic, width, height, greys] = [word(), word(), word(), word()];
    assert_eq!((magic.as_str(), greys.as_str()), ("P5", "255"));
    let (width, height): (usize, usize) = (width.parse().unwrap(), height.parse().unwrap());
    assert_eq!(rest.len(), width * height);
    Picture { width, dots: rest.to_vec() }
}

/// What the codes in a picture say. Looked at twice, as telephones do, with a threshold of its place and with one for
/// all: which of the two finds a code hangs on how its modules fall on the dots.
fn codes(picture: &Picture) -> BTreeSet<String> {
    let (width, dot) = (picture.width, |x: usize, y: usize| picture.dots[y * picture.width + x]);
    let height = picture.dots.len() / width;
    let mut looks = [
        PreparedImage::prepare_from_greyscale(width, height, dot),
        PreparedImage::prepare_from_bitmap(width, height, |x, y| dot(x, y) < 128),
    ];
    let grids = looks.iter_mut().flat_map(PreparedImage::detect_grids);
    grids.filter_map(|grid| Some(grid.decode().ok()?.1)).collect()
}

#[tokio::test]
async fn the_pdf_has_every_field_as_text_in_each_script() {
    for locale in Locale::ALL {
        let text =
            String::from_utf8(run("pdftotext", &["-layout", "-enc", "UTF-8"], &printed(locale, "words").await, &["-"]))
                .unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        let of_language: [&str; 7] = match locale {
            Locale::Ky => [
                "Төлөм дүмүрчөгү",
                "Төлөндү: 510,00 сом",
                "Дүмүрчөктүн номери TLM-0000000042",
                "Күнү жана убактысы 23.11.2026 02:05 (UTC+6)",
                "Кызмат Паспорт",
                "Арыз берүүчү Үсөнова Өкүм Ыңтымаковна",
                "Авторизация коду A1B2C3",
            ],
            Locale::Ru => [
                "Квитанция об оплате",
                "Оплачено: 510,00 сом",
                "Номер квитанции TLM-0000000042",
                "Дата и время 23.11.2026 02:05 (UTC+6)",
                "Услуга Паспорт",
                "Заявитель Үсөнова Өкүм Ыңтымаковна",
                "Код авторизации A1B2C3",
            ],
            Locale::En => [
                "Payment receipt",
                "Paid: 510.00 KGS",
                "Receipt number TLM-0000000042",
                "Date and time 23.11.2026 02:05 (UTC+6)",
                "Service Passport",
                "Applicant Үсөнова Өкүм Ыңтымаковна",
                "Authorization code A1B2C3",
            ],
        };
        let verify = receipt(42, locale).verify_url(PUBLIC_URL);
        let everywhere = [
            "1100000017",
            "Visa **** 1111",
            "632800000017",
            "+996 312 000 000",
            "help@tolom.example",
            "Tolom",
            &verify,
        ];
        for said in of_language.iter().chain(&everywhere) {
            assert!(text.contains(said), "{locale}: {said} is not in {text}");
        }
        assert!(!text.contains("411111"), "more of the card than its last digits: {text}");
    }
}

#[tokio::test]
async fn the_code_on_paper_opens_the_verifying_page() {
    for locale in Locale::ALL {
        let file = printed(locale, "code").await;
        // As a screen shows it, as paper has it, and as a poor copier leaves it.
        for resolution in ["96", "150", "300"] {
            let picture = pgm(&run("pdftoppm", &["-gray", "-singlefile", "-r", resolution], &file, &[]));
            let expected = BTreeSet::from([format!("{PUBLIC_URL}/{locale}/receipts/TLM-0000000042")]);
            assert_eq!(codes(&picture), expected, "{locale} at {resolution} dots an inch");
        }
    }
}
