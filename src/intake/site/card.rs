//! The card's form. It is filled in here, sealed in the browser, and never submitted in clear: its fields have no names.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    super::{Intake, extract::BillCode, limits::ClientAddress, problem::Problem},
    assets::ASSETS,
    bill::{Shown, Standing},
    documents::day,
    language::Lang,
    page::{Frame, answer},
    policy::Forms,
    scripts::{self, Words},
    texts::{Text, say, say_with},
};
use crate::{
    config::AGREEMENT,
    notify::{Locale, shown},
};

/// Countries with their calling codes and the digits of their shortest mobile numbers without it (ITU-T E.164 and the
/// national numbering plans), where the most payers are first.
const COUNTRIES: [(Text, &str, u8); 24] = [
    (Text::CountryKg, "+996", 9),
    (Text::CountryRu, "+7", 10),
    (Text::CountryKz, "+7", 10),
    (Text::CountryTr, "+90", 10),
    (Text::CountryKr, "+82", 9),
    (Text::CountryUs, "+1", 10),
    (Text::CountryDe, "+49", 10),
    (Text::CountryUz, "+998", 9),
    (Text::CountryAe, "+971", 9),
    (Text::CountryGb, "+44", 10),
    (Text::CountryIt, "+39", 9),
    (Text::CountryFr, "+33", 9),
    (Text::CountryPl, "+48", 9),
    (Text::CountryCz, "+420", 9),
    (Text::CountryCn, "+86", 11),
    (Text::CountryJp, "+81", 10),
    (Text::CountryBy, "+375", 9),
    (Text::CountryTj, "+992", 9),
    (Text::CountryUa, "+380", 9),
    (Text::CountryGe, "+995", 9),
    (Text::CountryAz, "+994", 9),
    (Text::CountrySa, "+966", 9),
    (Text::CountryEg, "+20", 10),
    (Text::CountryIl, "+972", 9),
];

#[derive(Template)]
#[template(path = "card.html", config = "src/intake/site/askama.toml")]
struct Page {
    frame: Frame,
    bill: Shown,
    raw_code: String,
    /// What the script sends along; see `scripts::card`.
    words: Words,
    countries: Vec<(String, &'static str, u8)>,
    networks: String,
    agreement: String,
    agreement_link: String,
    pay: String,
}

/// The form; or back to the bill, when it cannot be paid.
pub(super) async fn show(
    State(intake): State<Intake>,
    Lang(lang): Lang,
    ClientAddress(address): ClientAddress,
    BillCode(code): BillCode,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let bill = intake.look_up(address, &code).await?;
    // While it is being paid the form stays: the payment may be this browser's own, and its script knows.
    if !matches!(Standing::of(&bill), Standing::Payable | Standing::BeingPaid) {
        let location = format!("/{lang}/bills/{code}");
        return Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response());
    }
    let frame =
        Frame::new(&intake, lang, format!("/bills/{code}/pay"), say(lang, Text::CardTitle)).script(&ASSETS.card);
    let terms = intake.terms_in_force().to_owned();
    let since = intake.config.terms.iter().find(|it| it.version == terms).map(|it| day(&it.in_force_from));
    let shown = Shown::new(&bill, lang);
    let page = Page {
        pay: say_with(lang, Text::PayButton, &[("amount", shown.amount.as_str())]),
        words: scripts::card(lang, &intake.config, &bill, &terms),
        countries: COUNTRIES.iter().map(|(name, code, digits)| (say(lang, *name), *code, *digits)).collect(),
        networks: networks(&intake.config.card.networks, lang),
        agreement: say_with(
            lang,
            Text::AgreementVersion,
            &[("version", terms.as_str()), ("date", since.unwrap_or_default().as_str())],
        ),
        agreement_link: format!("/{lang}/documents/{AGREEMENT}/{terms}"),
        raw_code: code.to_string(),
        bill: shown,
        frame,
    };
    answer(&intake, &headers, StatusCode::OK, &page.frame, &page, Forms::Nowhere)
}

/// The card networks that are taken, for a sentence; empty when all are.
fn networks(words: &[String], lang: Locale) -> String {
    let names: Vec<String> = words.iter().map(|word| shown::brand(word, lang)).collect();
    if names.is_empty() { say(lang, Text::CardAllNetworks) } else { names.join(", ") }
}
