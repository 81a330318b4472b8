//! Decodes plain text of any encoding.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};

/// The text, without invisible characters. None if the bytes are not text.
pub fn decode(bytes: &[u8]) -> Option<String> {
    let encoding = match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, _)) => encoding,
        None if looks_like_utf16(bytes, 1) => encoding_rs::UTF_16LE,
        None if looks_like_utf16(bytes, 0) => encoding_rs::UTF_16BE,
        None => {
            let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
            detector.feed(bytes, true);
            detector.guess(None, Utf8Detection::Allow)
        }
    };
    let (text, _, _) = encoding.decode(bytes);
    let total = text.chars().count();
    // A text has next to none of these; a program or an image is full of them.
    let odd = text.chars().filter(|c| (c.is_control() && !c.is_whitespace()) || *c == '\u{fffd}').count();
    (odd * 20 <= total).then(|| tidy(&text))
}

/// Without a byte order mark: European text in UTF-16 has a zero in nearly every second byte.
fn looks_like_utf16(bytes: &[u8], zero: usize) -> bool {
    let sample = &bytes[..bytes.len().min(2000)];
    let zeros = sample.iter().skip(zero).step_by(2).filter(|b| **b == 0).count();
    sample.len() >= 4 && zeros * 5 >= sample.len() * 2
}

/// Drops control characters, and joins the blanks that layout leaves behind.
pub fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    let (mut blanks, mut breaks) = (0, 0);
    for c in text.chars() {
        match c {
            '\n' => breaks += 1,
            c if c.is_whitespace() => blanks += 1,
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{fffd}') => {}
            c => {
                if !tidy.is_empty() {
                    match (breaks, blanks) {
                        (0, 0) => {}
                        (0, _) => tidy.push(' '),
                        (1, _) => tidy.push('\n'),
                        _ => tidy.push_str("\n\n"),
                    }
                }
                (blanks, breaks) = (0, 0);
                tidy.push(c);
            }
        }
    }
    tidy
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Urlaub: 30 Tage im Jahr. Überträge bis März müssen beantragt werden. Größe, Maß, Füße.";

    #[test]
    fn every_usual_encoding_is_read() {
        let utf16 = |big: bool| -> Vec<u8> {
            let unit = |u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() };
            TEXT.encode_utf16().flat_map(unit).collect()
        };
        let latin1: Vec<u8> = TEXT.chars().map(|c| u8::try_from(u32::from(c)).expect("Latin-1")).collect();
        let with_bom = |bom: &[u8], rest: Vec<u8>| [bom, &rest].concat();
        for (name, bytes) in [
            ("UTF-8", TEXT.as_bytes().to_vec()),
            ("UTF-8 with a mark", with_bom(&[0xef, 0xbb, 0xbf], TEXT.into())),
            ("UTF-16 LE with a mark", with_bom(&[0xff, 0xfe], utf16(false))),
            ("UTF-16 BE with a mark", with_bom(&[0xfe, 0xff], utf16(true))),
            ("UTF-16 LE", utf16(false)),
            ("UTF-16 BE", utf16(true)),
            ("Latin-1", latin1),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(TEXT), "{name}");
        }
    }

    #[test]
    fn utf16_is_told_by_its_zeros_and_a_few_of_them_are_not_enough() {
        let plain: Vec<u8> = "Plain text in ASCII.".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(decode(&plain).as_deref(), Some("Plain text in ASCII."));
        // One in five, one in three, and four in five of the odd bytes.
        let zeros = |of: usize, every: usize| -> Vec<u8> {
            (0..200).map(|i| if i % 2 == 1 && (i / 2) % every < of { 0 } else { b'x' }).collect()
        };
        assert!(!looks_like_utf16(&zeros(1, 5), 1) && !looks_like_utf16(&zeros(1, 3), 1));
        assert!(looks_like_utf16(&zeros(4, 5), 1) && !looks_like_utf16(&zeros(4, 5), 0));
    }

    #[test]
    fn what_is_no_text_is_told_apart() {
        let noise: Vec<u8> = (0..4000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0]).collect();
        assert_eq!(decode(&noise), None);
        assert_eq!(decode(b"PK\x03\x04\x14\x00\x00\x00\x08\x00\x01\x02\x03\x04\x05"), None);
        assert_eq!(decode(b""), Some(String::new()));
    }

    #[test]
    fn layout_is_tidied_and_paragraphs_stay() {
        assert_eq!(tidy("  a \t b\r\n\r\n\r\nc\u{0}d \n e"), "a b\n\ncd\ne");
    }
}
