//! The SMTP sink: takes every e-mail and keeps it for the mailbox page.

use std::sync::{Arc, Mutex};
use std::time::Duration;

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
pub struct Mailbox(Mutex<Vec<Received>>);

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

/// RFC 5321, as far as a sender without TLS and login needs it.
async fn session(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    writer.write_all(b"220 sandbox ESMTP\r\n").await?;
    let mut mail = Received::default();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let line = line.trim_end();
        let verb = line.get(..4).unwrap_or(line).to_uppercase();
        let answer: &[u8] = match verb.as_str() {
            "EHLO" => b"250-sandbox\r\n250-8BITMIME\r\n250 SIZE 10485760\r\n",
            "HELO" | "NOOP" => b"250 OK\r\n",
            "RSET" => {
                mail = Received::default();
                b"250 OK\r\n"
            }
            "MAIL" => {
                mail = Received { from: address(line), ..Received::default() };
                b"250 OK\r\n"
            }
            "RCPT" => {
                mail.to = address(line);
                b"250 OK\r\n"
            }
            "DATA" => {
                let fault = strike(shared, &mail.to).await;
                if let Some(code) = fault.as_ref().and_then(|f| f.status) {
                    writer.write_all(format!("{code} injected fault\r\n").as_bytes()).await?;
                    continue;
                }
                writer.write_all(b"354 go on\r\n").await?;
                mail.data = data(&mut reader).await?;
                mail.subject = header(&mail.data, "subject");
                mail.message_id = header(&mail.data, "message-id");
                shared.mailbox.push(std::mem::take(&mut mail));
                shared.changed();
                tokio::time::sleep(Duration::from_millis(fault.as_ref().map_or(0, |f| f.answer_delay_ms))).await;
                if fault.is_some_and(|f| f.drop_after_effect) {
                    return Ok(());
                }
                b"250 OK\r\n"
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => b"502 not implemented\r\n",
        };
        writer.write_all(answer).await?;
    }
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
