//! The SMTP sink: keeps each e-mail for the mailbox page, and refuses what a mail server refuses: RFC 5321, 4954 (AUTH)
//! and 6531 (SMTPUTF8, which it does not have).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::faults::{Fault, LoggedRequest};
use super::{Shared, lock};

const MAIL_LIMIT: usize = 10 << 20;
const KEPT: usize = 5_000;

/// An e-mail as it came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Received {
    from: String,
    to: String,
    subject: String,
    message_id: String,
    data: String,
}

/// An e-mail as people see it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    #[serde(flatten)]
    received: Received,
    text: String,
    html: String,
    /// The addresses in the text.
    links: Vec<String>,
}

impl Shown {
    fn of(received: Received) -> Self {
        let parsed = mail_parser::MessageParser::default().parse(received.data.as_bytes());
        let body = |text: Option<std::borrow::Cow<str>>| text.unwrap_or_default().replace("\r\n", "\n");
        let text = body(parsed.as_ref().and_then(|mail| mail.body_text(0)));
        let html = body(parsed.as_ref().and_then(|mail| mail.body_html(0)));
        let words = text.split_whitespace().filter(|word| word.starts_with("http://") || word.starts_with("https://"));
        Self { links: words.map(str::to_owned).collect(), received, text, html }
    }
}

/// The e-mails that came, oldest first.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Vec<Received>>, Mutex<Rules>);

/// What the server asks of its clients.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// `user:password`, without which it takes no e-mail.
    login: Option<String>,
}

/// Sets the rules.
pub async fn configure(State(s): State<Arc<Shared>>, Json(rules): Json<Rules>) -> StatusCode {
    *lock(&s.mailbox.1) = rules;
    StatusCode::NO_CONTENT
}

impl Mailbox {
    /// For people and tests.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.list().into_iter().map(Shown::of).collect()
    }

    pub(crate) fn list(&self) -> Vec<Received> {
        lock(&self.0).clone()
    }

    pub(crate) fn restore(&self, mails: Vec<Received>) {
        *lock(&self.0) = mails;
    }

    fn push(&self, mail: Received) {
        let mut mails = lock(&self.0);
        if mails.len() == KEPT {
            mails.remove(0);
        }
        mails.push(mail);
    }
}

pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let session = tokio::time::timeout(Duration::from_mins(5), session(stream, &shared));
            if let Ok(Err(error)) = session.await {
                tracing::debug!(%error, "an SMTP session broke off");
            }
        });
    }
}

/// What a client has said so far.
#[derive(Default)]
struct Session {
    greeted: bool,
    /// Set with MAIL: an e-mail has begun.
    begun: bool,
    logged_in: bool,
    mail: Received,
}

async fn session(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    if let Some(refusal) = refusal(shared, "CONNECT", "").await {
        return writer.write_all(refusal.as_bytes()).await;
    }
    writer.write_all(b"220 sandbox ESMTP\r\n").await?;
    let mut session = Session::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let verb = line.get(..4).unwrap_or(line).to_uppercase();
        if verb == "QUIT" {
            return writer.write_all(b"221 bye\r\n").await;
        }
        let answer = if verb == "DATA" {
            match session.deliver(shared, &mut reader, &mut writer).await? {
                Some(answer) => answer,
                None => return Ok(()),
            }
        } else {
            session.answer(shared, &verb, line).await
        };
        writer.write_all(answer.as_bytes()).await?;
    }
}

const OK: &str = "250 2.0.0 OK\r\n";
const BAD_SEQUENCE: &str = "503 5.5.1 bad sequence of commands\r\n";

impl Session {
    async fn answer(&mut self, shared: &Shared, verb: &str, line: &str) -> String {
        let address = address(line);
        let stage = ["EHLO", "MAIL", "RCPT"].into_iter().find(|stage| *stage == verb);
        if let Some(stage) = stage
            && let Some(refusal) = refusal(shared, stage, &address).await
        {
            return refusal;
        }
        match verb {
            "EHLO" | "HELO" => {
                (self.greeted, self.begun, self.mail) = (true, false, Received::default());
                let login = if lock(&shared.mailbox.1).login.is_some() { "250-AUTH PLAIN\r\n" } else { "" };
                format!("250-sandbox\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n{login}250 SIZE {MAIL_LIMIT}\r\n")
            }
            "NOOP" => OK.into(),
            "RSET" => {
                (self.begun, self.mail) = (false, Received::default());
                OK.into()
            }
            "AUTH" => self.log_in(shared, line).into(),
            // RFC 3207: a server without a certificate.
            "STAR" => "454 4.7.0 TLS not available\r\n".into(),
            "MAIL" => self.begin(shared, line, address).into(),
            "RCPT" if !self.begun => BAD_SEQUENCE.into(),
            "RCPT" if !address.is_ascii() => "553 5.6.7 SMTPUTF8 is not supported\r\n".into(),
            "RCPT" if !address.contains('@') => "553 5.1.3 bad destination address\r\n".into(),
            "RCPT" => {
                self.mail.to = address;
                OK.into()
            }
            _ => "502 5.5.2 not implemented\r\n".into(),
        }
    }

    /// RFC 4954: not twice, not within an e-mail.
    fn log_in(&mut self, shared: &Shared, line: &str) -> &'static str {
        let Some(login) = lock(&shared.mailbox.1).login.clone() else { return "502 5.5.1 AUTH is not enabled\r\n" };
        if !self.greeted || self.logged_in || self.begun {
            return BAD_SEQUENCE;
        }
        let given = line.rsplit(' ').next().and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
        // RFC 4616: an empty authorization identity, the user, the password.
        if given.strip_prefix(b"\0") != Some(login.replacen(':', "\0", 1).as_bytes()) {
            return "535 5.7.8 authentication credentials invalid\r\n";
        }
        self.logged_in = true;
        "235 2.7.0 accepted\r\n"
    }

    fn begin(&mut self, shared: &Shared, line: &str, from: String) -> &'static str {
        let parameters = line.split_once('>').map_or("", |(_, rest)| rest).to_uppercase();
        let size = parameters.split(' ').find_map(|p| p.strip_prefix("SIZE=")?.parse::<usize>().ok());
        if !self.greeted || self.begun {
            BAD_SEQUENCE
        } else if lock(&shared.mailbox.1).login.is_some() && !self.logged_in {
            "530 5.7.0 authentication required\r\n"
        } else if !from.is_ascii() || parameters.contains("SMTPUTF8") {
            "555 5.6.7 SMTPUTF8 is not supported\r\n"
        } else if size.is_some_and(|size| size > MAIL_LIMIT) {
            "552 5.3.4 the e-mail is too large\r\n"
        } else {
            (self.begun, self.mail) = (true, Received { from, ..Received::default() });
            OK
        }
    }

    /// Reads the e-mail itself. None if the connection is to be dropped.
    async fn deliver(
        &mut self,
        shared: &Shared,
        reader: &mut (impl AsyncBufReadExt + Unpin),
        writer: &mut (impl AsyncWriteExt + Unpin),
    ) -> std::io::Result<Option<String>> {
        let to = self.mail.to.clone();
        if to.is_empty() {
            return Ok(Some(BAD_SEQUENCE.into()));
        }
        let fault = strike(shared, &to).await;
        if let Some(code) = fault.as_ref().and_then(|f| f.status) {
            return Ok(Some(injected(code)));
        }
        writer.write_all(b"354 go on\r\n").await?;
        let mut mail = std::mem::take(&mut self.mail);
        self.begun = false;
        mail.data = data(reader).await?;
        if let Some(refusal) = refusal(shared, "BODY", &to).await {
            return Ok(Some(refusal));
        }
        mail.subject = header(&mail.data, "subject");
        mail.message_id = header(&mail.data, "message-id");
        shared.mailbox.push(mail);
        shared.changed();
        tokio::time::sleep(Duration::from_millis(fault.as_ref().map_or(0, |f| f.answer_delay_ms))).await;
        Ok((!fault.is_some_and(|f| f.drop_after_effect)).then(|| OK.into()))
    }
}

fn injected(code: u16) -> String {
    format!("{code} {}.0.0 injected fault\r\n", code / 100)
}

/// The refusal that is armed for this stage by its name, after its delay.
async fn refusal(shared: &Shared, stage: &'static str, address: &str) -> Option<String> {
    let fault = shared.faults.take_stage("smtp", stage, address)?;
    tokio::time::sleep(Duration::from_millis(fault.delay_ms)).await;
    fault.status.map(injected)
}

/// Logs an e-mail that begins, and answers the fault that is armed for it, after its delay.
async fn strike(shared: &Shared, to: &str) -> Option<Fault> {
    shared.faults.remember(LoggedRequest {
        provider: "smtp",
        method: "DATA".into(),
        path: to.into(),
        ..LoggedRequest::default()
    });
    let fault = shared.faults.take("smtp", "DATA", to);
    tokio::time::sleep(Duration::from_millis(fault.as_ref().map_or(0, |f| f.delay_ms))).await;
    fault
}

fn address(line: &str) -> String {
    line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map_or_else(String::new, |(a, _)| a.to_owned())
}

async fn data(reader: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<String> {
    let mut text = String::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line).await? == 0 || text.len() > MAIL_LIMIT {
            return Err(std::io::Error::other("no end of data"));
        }
        let line = String::from_utf8_lossy(&line);
        match line.trim_end() {
            "." => return Ok(text),
            // RFC 5321 4.5.2: a leading dot was doubled.
            _ => text.push_str(line.strip_prefix('.').unwrap_or(&line)),
        }
    }
}

fn header(data: &str, name: &str) -> String {
    let head = data.split("\r\n\r\n").next().unwrap_or_default().replace("\r\n ", " ");
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map_or_else(String::new, |(_, value)| value.trim().to_owned())
}
