//! How figures are written for people.

/// Such as `12.5 %`. Empty where there is nothing to divide by.
pub fn percent(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| format!("{number:.1} %"))
}

/// Such as `45 s`, `12 min`, `3.5 h`, `2.0 d`.
pub fn minutes(minutes: f64) -> String {
    match minutes {
        m if m < 1.0 => format!("{:.0} s", m * 60.0),
        m if m < 120.0 => format!("{m:.0} min"),
        m if m < 2880.0 => format!("{:.1} h", m / 60.0),
        m => format!("{:.1} d", m / 1440.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_the_unit_that_a_person_would_use() {
        let said: Vec<_> = [0.0, 0.75, 1.0, 119.0, 120.0, 2879.0, 2880.0].into_iter().map(minutes).collect();
        assert_eq!(said, ["0 s", "45 s", "1 min", "119 min", "2.0 h", "48.0 h", "2.0 d"]);
    }
}
