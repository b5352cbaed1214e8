//! A QR code (ISO/IEC 18004) as horizontal runs of dark modules, which a page and a PDF draw alike.

use qrcode::{Color, EcLevel, QrCode};

/// The light border that readers need (ISO/IEC 18004, 6.3.8), in modules.
pub(super) const QUIET: usize = 4;

/// A code, without its border.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Qr {
    /// Modules from side to side.
    pub(super) width: usize,
    /// Left end, row and length of each run, from the top left.
    pub(super) runs: Vec<(usize, usize, usize)>,
}

impl Qr {
    /// The code that says `text`; none if that is too long for one, and then a receipt has only the address in letters.
    ///
    /// A quarter of it may be lost (level Q): receipts are printed small, folded and stamped.
    pub(super) fn of(text: &str) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, EcLevel::Q).ok()?;
        let width = code.width();
        let rows = code.into_colors();
        let runs = rows.chunks(width).enumerate().flat_map(|(row, modules)| runs(row, modules)).collect();
        Some(Self { width, runs })
    }

    /// An SVG element with its border, its size left to the style.
    pub(super) fn svg(&self) -> String {
        let side = self.width + 2 * QUIET;
        let mut path = String::with_capacity(self.runs.len() * 16);
        for (left, row, length) in &self.runs {
            path.push_str(&format!("M{} {}h{length}v1h-{length}z", left + QUIET, row + QUIET));
        }
        format!(
            "<svg class=\"qr\" viewBox=\"0 0 {side} {side}\" aria-hidden=\"true\" shape-rendering=\"crispEdges\">\
             <path fill=\"#fff\" d=\"M0 0h{side}v{side}h-{side}z\"/><path fill=\"#000\" d=\"{path}\"/></svg>"
        )
    }
}

fn runs(row: usize, modules: &[Color]) -> Vec<(usize, usize, usize)> {
    let (mut runs, mut left) = (Vec::new(), 0);
    for group in modules.chunk_by(|one, next| one == next) {
        if group[0] == Color::Dark {
            runs.push((left, row, group.len()));
        }
        left += group.len();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Draws the runs, three dots a module with the border, and reads them as a telephone would.
    fn read(code: &Qr) -> String {
        const DOTS: usize = 3;
        let side = (code.width + 2 * QUIET) * DOTS;
        let dark = |x: usize, y: usize| {
            let (x, y) = ((x / DOTS).wrapping_sub(QUIET), (y / DOTS).wrapping_sub(QUIET));
            code.runs.iter().any(|(left, row, length)| *row == y && (*left..left + length).contains(&x))
        };
        let mut image =
            rqrr::PreparedImage::prepare_from_greyscale(side, side, |x, y| if dark(x, y) { 0 } else { 255 });
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn what_is_written_is_read() {
        for text in ["x", "https://pay.example/ky/receipts/TLM-0000000042", &"ө".repeat(300)] {
            assert_eq!(read(&Qr::of(text).unwrap()), text);
        }
    }

    #[test]
    fn what_does_not_fit_has_no_code() {
        assert_eq!(Qr::of(&"x".repeat(5_000)), None);
    }

    #[test]
    fn the_picture_needs_no_style_of_its_own() {
        let svg = Qr::of("https://pay.example/ky/receipts/TLM-0000000042").unwrap().svg();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>") && !svg.contains("style"), "{svg}");
        assert!(svg.len() < 12_000, "{} bytes", svg.len());
    }
}
