//! Cookies of a request. No cookie jar: jars keep one cookie of a name, and another application of the domain may have
//! set one of the same name.

use axum::http::{HeaderMap, header};

/// The values of all cookies of a name. Another application of the same domain may have set one as well, and a browser
/// may send it first: <https://www.rfc-editor.org/rfc/rfc6265#section-5.4>
pub fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(move |(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; session=x.y; visitor=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=3"));
        headers.append(header::COOKIE, HeaderValue::from_static("session=another application's"));
        let values = |name: &str| cookies(&headers, name).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(values("session"), ["x.y", "another application's"]);
        assert_eq!(values("b"), ["3"]);
        assert!(values("sess").is_empty());
    }
}
