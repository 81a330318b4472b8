//! Numbers of bytes as people read them: on pages, in e-mails and in the tables of `kubectl tenant`.

use super::Unit;

/// Bytes of a tenth of a megabyte.
const TENTH: i64 = 100_000;
/// Tenths of a megabyte from which on a size is in gigabytes.
const GIGABYTES: i64 = 10_000;

/// A size, rounded up to a tenth: what is there is never 0. Megabytes, and gigabytes from 1,000 of them on.
pub fn size(bytes: i64) -> String {
    let up = |bytes: i64, tenth: i64| bytes / tenth + i64::from(bytes % tenth > 0);
    let written = |tenths: i64, unit: &str| format!("{}.{} {unit}", tenths / 10, tenths % 10);
    match up(bytes.max(0), TENTH) {
        0 => "0 MB".to_owned(),
        tenths if tenths < GIGABYTES => written(tenths, "MB"),
        _ => written(up(bytes, TENTH * 1000), "GB"),
    }
}

impl Unit {
    /// Whether it counts bytes, which people read as a size.
    pub const fn is_size(self) -> bool {
        matches!(self, Self::Bytes | Self::EmbeddedBytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_megabytes_and_from_a_thousand_on_in_gigabytes() {
        for (bytes, written) in [
            (0, "0 MB"),
            (-1, "0 MB"),
            (1, "0.1 MB"),
            (100_000, "0.1 MB"),
            (100_001, "0.2 MB"),
            (999_900_000, "999.9 MB"),
            (999_900_001, "1.0 GB"),
            (1 << 30, "1.1 GB"),
            (5 << 30, "5.4 GB"),
            (i64::MAX, "9223372036.9 GB"),
        ] {
            assert_eq!(size(bytes), written, "{bytes}");
        }
    }
}
