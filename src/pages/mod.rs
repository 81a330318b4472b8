//! What the pages of customers and those of owners share: the style, and how templates write times and
//! amounts.

mod asset;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

pub use asset::{Asset, style};

/// An environment with these templates, by their names.
pub fn environment(templates: &[(&'static str, &'static str)]) -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    // A name that is misspelt shows in a test, not as a gap on a page.
    env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    env.set_auto_escape_callback(|_| AutoEscape::Html);
    env.add_filter("day", |time: String| day(&time));
    env.add_filter("thousands", crate::api::money::thousands);
    env.add_filter("size", crate::api::size);
    for (name, text) in templates {
        env.add_template(name, text)?;
    }
    Ok(env)
}

/// The day of a moment, as people write it.
fn day(time: &str) -> String {
    let moment: Option<jiff::Timestamp> = time.parse().ok();
    moment.map_or_else(|| time.to_owned(), |at| at.strftime("%-d %B %Y").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_out() {
        assert_eq!(day("2026-12-09T17:31:36Z"), "9 December 2026");
        assert_eq!(day("soon"), "soon");
    }
}
