//! A visitor with a browser, as far as the server can tell.

use std::collections::BTreeMap;

use reqwest::Response;

use super::World;

/// A visitor: keeps cookies as a browser does, and nothing else.
pub struct Visitor<'a> {
    pub world: &'a World,
    pub cookies: Vec<(String, String)>,
    /// The hidden fields of the forms that were shown, by the paths they are sent to.
    shown: BTreeMap<String, Vec<(String, String)>>,
}

pub const PASSWORD: &str = "correct horse battery";

impl<'a> Visitor<'a> {
    pub fn new(world: &'a World) -> Self {
        Self { world, cookies: Vec::new(), shown: BTreeMap::new() }
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = self.world.http.request(method, format!("{}{path}", self.world.web));
        request.header("accept", "text/html").header("cookie", cookies.join("; "))
    }

    pub fn keep(&mut self, response: &Response) {
        for cookie in response.headers().get_all("set-cookie") {
            let text = cookie.to_str().expect("text");
            let (name, value) = text.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.cookies.retain(|(there, _)| there != name);
            if !value.is_empty() {
                self.cookies.push((name.into(), value.into()));
            }
        }
    }

    pub async fn get(&mut self, path: &str) -> (u16, String) {
        let response = self.request(reqwest::Method::GET, path).send().await.expect("it answers");
        self.keep(&response);
        let (status, page) = (response.status().as_u16(), response.text().await.expect("text"));
        self.see(&page);
        (status, page)
    }

    /// Remembers the hidden fields of a page's forms, as a browser sends them.
    fn see(&mut self, page: &str) {
        let quoted = |text: &str, name: &str| {
            let value = text.split_once(&format!("{name}=\""))?.1.split('"').next()?;
            Some(value.replace("&quot;", "\"").replace("&#x27;", "'").replace("&#x2f;", "/").replace("&amp;", "&"))
        };
        for form in page.split("<form ").skip(1).filter_map(|rest| rest.split("</form>").next()) {
            let Some(action) = quoted(form, "action") else { continue };
            let hidden = form.split("<input type=\"hidden\" ").skip(1).filter_map(|input| {
                let name = quoted(input, "name").filter(|name| ["seen", "generation"].contains(&name.as_str()))?;
                Some((name, quoted(input, "value")?))
            });
            let action = action.split('#').next().unwrap_or_default().to_owned();
            self.shown.insert(action, hidden.collect());
        }
    }

    /// Where a form leads: status, place, and the page.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> (u16, String, String) {
        let mut all: Vec<(&str, &str)> = fields.to_vec();
        let shown = self.shown.get(path).cloned().unwrap_or_default();
        let given = |name: &str| fields.iter().any(|(there, _)| *there == name);
        all.extend(shown.iter().filter(|(name, _)| !given(name)).map(|(name, value)| (name.as_str(), value.as_str())));
        let response = self.request(reqwest::Method::POST, path).form(&all).send().await.expect("it answers");
        self.keep(&response);
        let place = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (status, page) = (response.status().as_u16(), response.text().await.expect("text"));
        self.see(&page);
        (status, place, page)
    }

    /// The token of the forms of a page.
    pub async fn csrf(&mut self, path: &str) -> String {
        let (_, page) = self.get(path).await;
        let rest = page.split("name=\"csrf\" value=\"").nth(1).expect("a form");
        rest.split('"').next().expect("a token").to_owned()
    }

    /// The status that a signup is answered.
    pub async fn try_sign_up(&mut self, email: &str) -> u16 {
        let csrf = self.csrf("/signup").await;
        let fields = [
            ("csrf", &*csrf),
            ("email", email),
            ("company_name", "Acme"),
            ("password", PASSWORD),
            ("accept_terms", "on"),
        ];
        self.post("/signup", &fields).await.0
    }

    pub async fn sign_up(&mut self, email: &str, company: &str) -> String {
        self.sign_up_for(email, company, None).await
    }

    /// Signs up for a plan, or for the one that the page suggests.
    pub async fn sign_up_for(&mut self, email: &str, company: &str, plan: Option<&str>) -> String {
        let csrf = self.csrf("/signup").await;
        let mut fields = vec![
            ("csrf", &*csrf),
            ("email", email),
            ("company_name", company),
            ("password", PASSWORD),
            ("accept_terms", "on"),
        ];
        fields.extend(plan.map(|plan| ("plan", plan)));
        let (status, place, page) = self.post("/signup", &fields).await;
        assert_eq!((status, &*place), (303, "/account"), "{page}");
        let session = self.cookies.iter().find(|(name, _)| name == "session").expect("a session");
        session.1.split('.').next().expect("a name").to_owned()
    }

    /// Where a page leads.
    pub async fn get_place(&mut self, path: &str) -> (u16, String) {
        let response = self.request(reqwest::Method::GET, path).send().await.expect("it answers");
        self.keep(&response);
        let place = response.headers().get("location").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        (response.status().as_u16(), place)
    }

    pub async fn log_in(&mut self, email: &str, password: &str) -> u16 {
        let csrf = self.csrf("/login").await;
        self.post("/login", &[("csrf", &csrf), ("email", email), ("password", password)]).await.0
    }
}
