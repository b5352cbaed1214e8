//! The bank's page of a challenge (3-D Secure access control server): asks for the one-time code, and sends the payer
//! back with the answer.
//!
//! The shop's page posts the challenge's fields here, with `TermUrl`, the address to come back to. 3-D Secure 1.0.2 has
//! it so; EMV 3-D Secure would have agreed on the address (`notificationURL`) in the authentication request, which the
//! acquirer's contract does not carry, so here it comes with `creq` too. Any `http` or `https` address is taken.

mod messages;
mod page;

use axum::{
    Form,
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use url::Url;

#[cfg(test)]
pub(super) use self::messages::answer;
pub(super) use self::messages::{Protocol, fields, is_answer};
use self::page::{Ask, Return};
use super::{
    api::App,
    confirmation::{Asking, Given, Stage, Verdict},
};

/// Longest value that is handed back as it came (EMV 3DS 2.2, `threeDSSessionData`), in bytes.
const LONGEST_SESSION: usize = 1_024;
const LONGEST_ADDRESS: usize = 2_048;

/// What comes from the shop's form, and from our own after it.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Visit {
    creq: Option<String>,
    #[serde(rename = "PaReq")]
    pareq: Option<String>,
    #[serde(rename = "TermUrl")]
    term_url: String,
    #[serde(rename = "MD")]
    md: Option<String>,
    #[serde(rename = "threeDSSessionData")]
    session: Option<String>,
    otp: String,
    cancel: Option<String>,
}

impl Visit {
    /// The request message, by the protocol's name for it.
    fn request(&self, protocol: Protocol) -> Option<&str> {
        match protocol {
            Protocol::V1 => self.pareq.as_deref(),
            Protocol::V2 => self.creq.as_deref(),
        }
    }

    /// What the shop wants back as it came, and its name.
    fn session(&self, protocol: Protocol) -> Option<(&'static str, &str)> {
        match protocol {
            Protocol::V1 => Some(("MD", self.md.as_deref()?)),
            Protocol::V2 => Some(("threeDSSessionData", self.session.as_deref()?)),
        }
    }

    /// The address to come back to, if it is one and everything else has its measure.
    fn way_back(&self, protocol: Protocol) -> Result<Url, &'static str> {
        if self.session(protocol).is_some_and(|(_, value)| value.len() > LONGEST_SESSION) {
            return Err("MD or threeDSSessionData is longer than 1,024 bytes.");
        }
        let address = Some(&self.term_url).filter(|text| text.len() <= LONGEST_ADDRESS);
        let address = address.and_then(|text| Url::parse(text).ok());
        address.filter(|url| matches!(url.scheme(), "http" | "https")).ok_or("TermUrl is not a web address.")
    }
}

/// The shop sent the payer here.
pub(super) async fn open(State(app): State<App>, Path(reference): Path<String>, Form(visit): Form<Visit>) -> Response {
    let now = app.simulator.0.clock.now();
    let asking = app.simulator.bank().asking(&reference, now);
    show(&app, &reference, &visit, asking)
}

/// The payer typed a code, or gave up.
pub(super) async fn act(State(app): State<App>, Path(reference): Path<String>, Form(visit): Form<Visit>) -> Response {
    let now = app.simulator.0.clock.now();
    let given = if visit.cancel.is_some() { Given::Cancel } else { Given::Code(&visit.otp) };
    let asking = app.simulator.bank().answer(&reference, given, now);
    show(&app, &reference, &visit, asking)
}

fn show(app: &App, reference: &str, visit: &Visit, asking: Option<Asking>) -> Response {
    let Some(asking) = asking else {
        return page::wrong(StatusCode::NOT_FOUND, "Nothing waits for a confirmation here.");
    };
    let protocol = asking.protocol;
    if !visit.request(protocol).is_some_and(|request| messages::is_request(protocol, reference, request)) {
        return page::wrong(StatusCode::BAD_REQUEST, "creq or PaReq is not the one of this payment.");
    }
    let back = match visit.way_back(protocol) {
        Ok(back) => back,
        Err(why) => return page::wrong(StatusCode::BAD_REQUEST, why),
    };
    match asking.stage {
        Stage::Open { tries_left, said } => {
            let left = asking.expires_at - app.simulator.0.clock.now();
            let request = (protocol.request_field(), visit.request(protocol).unwrap_or_default());
            let merchant = &app.simulator.0.options.merchant;
            let seconds = left.whole_seconds().max(0) + i64::from(left.subsec_nanoseconds() > 0);
            let session = visit.session(protocol);
            let ask = Ask { reference, merchant, asking: &asking, tries_left, said, seconds, request, session };
            ask.page(&back, &visit.term_url)
        }
        Stage::Over(verdict) => {
            let answer = messages::answer(protocol, reference, verdict == Verdict::Confirmed);
            let answer = (protocol.answer_field(), answer.as_str());
            Return { verdict, answer, session: visit.session(protocol) }.page(&back, &visit.term_url)
        }
    }
}
