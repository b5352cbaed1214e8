//! The receipt on one A4 page.
//!
//! Everything in the file comes from the receipt, its dates too, so the same receipt is the same bytes for ever. The
//! font is built in, for none of the fonts every reader has knows the Kyrgyz letters.

use std::sync::LazyLock;

use krilla::{
    Document,
    action::{Action, LinkAction},
    annotation::{Annotation, LinkAnnotation, Target},
    color::rgb,
    geom::{PathBuilder, Point, Rect},
    metadata::{DateTime, Metadata},
    page::{Page, PageSettings},
    paint::{Fill, Paint, Stroke},
    surface::Surface,
    text::{Font, TextDirection},
};
use skrifa::{
    FontRef, GlyphId, MetadataProvider, charmap::Charmap, instance::LocationRef, instance::Size, metrics::GlyphMetrics,
};

use super::{
    qr::{QUIET, Qr},
    receipt::{Receipt, RenderError, Row, Words},
};
use crate::clock::BISHKEK;

static FONT_FILE: &[u8] = include_bytes!("fonts/DejaVuSans-subset.ttf");
static FONT: LazyLock<Option<Typeface>> = LazyLock::new(|| {
    let font = Font::new(FONT_FILE.into(), 0)?;
    let read = FontRef::new(FONT_FILE).ok()?;
    // A size of one unit gives advances in ems.
    let metrics = read.glyph_metrics(Size::new(1.0), LocationRef::default());
    Some(Typeface { font, letters: read.charmap(), metrics })
});

/// ISO 216 A4 in points.
const PAGE: (f32, f32) = (595.28, 841.89);
const MARGIN: f32 = 56.0;
const VALUES_AT: f32 = 236.0;
const RIGHT: f32 = PAGE.0 - MARGIN;
/// Side of the code without its border, 33 mm: a module of 0.8 mm, which any telephone reads off paper.
const CODE: f32 = 94.0;

const INK: [u8; 3] = [0x1b, 0x24, 0x30];
const GREY: [u8; 3] = [0x55, 0x60, 0x6d];
const GREEN: [u8; 3] = [0x11, 0x69, 0x3d];
const LINK: [u8; 3] = [0x0b, 0x5c, 0xad];
const RULE: [u8; 3] = [0xd5, 0xdb, 0xe2];

/// The font twice: as the writer embeds it, and as its measures are read.
struct Typeface {
    font: Font,
    letters: Charmap<'static>,
    metrics: GlyphMetrics<'static>,
}

pub(super) fn write(receipt: &Receipt, words: &Words, operator: &str) -> Result<Vec<u8>, RenderError> {
    let typeface = FONT.as_ref().ok_or(RenderError::Pdf)?;
    let mut document = Document::new();
    document.set_metadata(metadata(receipt, words, operator));
    let settings = PageSettings::from_wh(PAGE.0, PAGE.1).ok_or(RenderError::Pdf)?;
    let mut page = document.start_page_with(settings);
    let link = fill(&mut Sheet { surface: page.surface(), typeface, y: MARGIN }, words, operator);
    add_link(&mut page, link, &words.verify.url, &words.verify.label);
    page.finish();
    document.finish().map_err(|_| RenderError::Pdf)
}

/// Writes the page, and says where the verifying page's address stands.
fn fill(sheet: &mut Sheet<'_>, words: &Words, operator: &str) -> Option<Rect> {
    sheet.paragraph(operator, 10.0, GREY);
    sheet.paragraph(&words.title, 20.0, INK);
    sheet.y += 6.0;
    sheet.paragraph(&format!("{}: {}", words.paid, words.amount), 14.0, GREEN);
    sheet.y += 6.0;
    sheet.paragraph(&words.intro, 10.5, INK);
    sheet.y += 6.0;
    for row in &words.rows {
        sheet.row(row);
    }
    sheet.rule();
    sheet.y += 14.0;
    let link = sheet.verification(words);
    sheet.y += 10.0;
    sheet.paragraph(&words.questions, 9.0, GREY);
    sheet.paragraph(&words.not_yours, 9.0, GREY);
    link
}

fn add_link(page: &mut Page<'_>, place: Option<Rect>, url: &str, alternative: &str) {
    let Some(place) = place else { return };
    let target = Target::Action(Action::Link(LinkAction::new(url.to_owned())));
    page.add_annotation(Annotation::new_link(LinkAnnotation::new(place, target), Some(alternative.to_owned())));
}

fn metadata(receipt: &Receipt, words: &Words, operator: &str) -> Metadata {
    let at = receipt.paid_at.to_offset(BISHKEK);
    let created = DateTime::new(u16::try_from(at.year()).unwrap_or(0))
        .month(u8::from(at.month()))
        .day(at.day())
        .hour(at.hour())
        .minute(at.minute())
        .second(at.second())
        .utc_offset_hour(6);
    Metadata::new()
        .title(format!("{} {}", words.title, receipt.number))
        .language(receipt.locale.as_str().to_owned())
        .authors(vec![operator.to_owned()])
        .document_id(receipt.payment.to_string())
        .creation_date(created)
}

fn paint([red, green, blue]: [u8; 3]) -> Paint {
    rgb::Color::new(red, green, blue).into()
}

/// A page that is written from the top down.
struct Sheet<'a> {
    surface: Surface<'a>,
    typeface: &'static Typeface,
    y: f32,
}

impl Sheet<'_> {
    fn paragraph(&mut self, text: &str, size: f32, color: [u8; 3]) {
        let top = self.y;
        self.y = self.lines(text, (MARGIN, top), RIGHT - MARGIN, size, color) + size * 0.4;
    }

    fn row(&mut self, row: &Row) {
        self.rule();
        let top = self.y + 5.0;
        let below_label = self.lines(&row.label, (MARGIN, top), VALUES_AT - MARGIN - 12.0, 10.5, GREY);
        let below_value = self.lines(&row.value, (VALUES_AT, top), RIGHT - VALUES_AT, 10.5, INK);
        self.y = below_label.max(below_value) + 3.0;
    }

    /// The code that holds the verifying page's address, and the address in letters beside it, centred on the code; its
    /// place.
    fn verification(&mut self, words: &Words) -> Option<Rect> {
        let top = self.y;
        let code = Qr::of(&words.verify.url);
        let left = code.as_ref().map_or(MARGIN, |code| self.code(code, top));
        let (width, lines) = (RIGHT - left, [(&words.verify.label, 10.5, INK), (&words.scan, 9.0, GREY)]);
        let mut y = top + if code.is_some() { 16.0 } else { 0.0 };
        for (text, size, color) in lines {
            y = self.lines(text, (left, y), width, size, color) + 2.0;
        }
        let below = self.lines(&words.verify.url, (left, y), width, 9.0, LINK);
        self.y = below.max(top + if code.is_some() { CODE } else { 0.0 });
        Rect::from_ltrb(left, y, RIGHT, below)
    }

    /// Draws a code at the margin, and says where there is room beside it.
    fn code(&mut self, code: &Qr, top: f32) -> f32 {
        let (module, place) = (CODE / code.width as f32, |modules: usize| modules as f32 * CODE / code.width as f32);
        let mut path = PathBuilder::new();
        for (x, y, length) in &code.runs {
            let run = Rect::from_xywh(MARGIN + place(*x), top + place(*y), place(*length), module);
            if let Some(run) = run {
                path.push_rect(run);
            }
        }
        if let Some(path) = path.finish() {
            self.surface.set_fill(Some(Fill { paint: paint([0, 0, 0]), ..Fill::default() }));
            self.surface.draw_path(&path);
        }
        MARGIN + CODE + place(QUIET)
    }

    fn rule(&mut self) {
        let mut line = PathBuilder::new();
        line.move_to(MARGIN, self.y);
        line.line_to(RIGHT, self.y);
        if let Some(path) = line.finish() {
            self.surface.set_fill(None);
            self.surface.set_stroke(Some(Stroke { paint: paint(RULE), width: 0.5, ..Stroke::default() }));
            self.surface.draw_path(&path);
            self.surface.set_stroke(None);
        }
    }

    /// Writes a text in as many lines as it needs, and says where the last one ends.
    fn lines(&mut self, text: &str, (x, top): (f32, f32), width: f32, size: f32, color: [u8; 3]) -> f32 {
        self.surface.set_fill(Some(Fill { paint: paint(color), ..Fill::default() }));
        let mut baseline = top;
        for line in self.typeface.wrap(text, width / size) {
            baseline += size * 1.25;
            let font = self.typeface.font.clone();
            self.surface.draw_text(Point::from_xy(x, baseline), font, size, &line, false, TextDirection::LeftToRight);
        }
        baseline + size * 0.25
    }
}

impl Typeface {
    /// Breaks a text at its spaces, and a word too long for a line anywhere; the width is in ems.
    fn wrap(&self, text: &str, width: f32) -> Vec<String> {
        let (mut lines, mut line, mut used) = (Vec::new(), String::new(), 0.0);
        for word in text.split(' ') {
            let gap = if line.is_empty() { 0.0 } else { self.width(" ") };
            if used + gap + self.width(word) > width && !line.is_empty() {
                lines.push(std::mem::take(&mut line));
                used = 0.0;
            } else if !line.is_empty() {
                line.push(' ');
                used += gap;
            }
            for letter in word.chars() {
                let advance = self.advance(letter);
                if used + advance > width && !line.is_empty() {
                    lines.push(std::mem::take(&mut line));
                    used = 0.0;
                }
                line.push(letter);
                used += advance;
            }
        }
        lines.push(line);
        lines
    }

    fn width(&self, text: &str) -> f32 {
        text.chars().map(|letter| self.advance(letter)).sum()
    }

    /// In ems; what the font does not have is drawn as its box.
    fn advance(&self, letter: char) -> f32 {
        let glyph = self.letters.map(letter).unwrap_or(GlyphId::NOTDEF);
        self.metrics.advance_width(glyph).unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_font_has_every_letter_of_the_texts_and_of_kyrgyz_names() {
        let typeface = FONT.as_ref().unwrap();
        let files = [include_str!("texts/ky.ftl"), include_str!("texts/ru.ftl"), include_str!("texts/en.ftl")];
        let letters = files.concat() + "АаӨөҮүҢңЁёЪъ\u{a0}…";
        for letter in letters.chars().filter(|letter| *letter != '\n') {
            assert!(typeface.letters.map(letter).is_some(), "{letter:?}");
        }
    }

    #[test]
    fn lines_keep_every_letter_and_fit() {
        let typeface = FONT.as_ref().unwrap();
        let text = format!("Асанов Үсөн {} конец", "Щ".repeat(60));
        let lines = typeface.wrap(&text, 20.0);
        assert!(lines.len() > 3 && lines.iter().all(|line| typeface.width(line) <= 20.0), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
    }
}
