//! Servers that the checks ask beside the sandbox.

use std::path::PathBuf;

use serde_json::json;

/// A web that is ready.
pub(super) async fn ready() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let routes = axum::Router::new().fallback(async || "ok");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

/// What the name server knows.
fn zone(name: &str) -> &'static [&'static str] {
    match name {
        "mail.good.example." => &["google-site-verification=x", "v=spf1 include:_spf.mail.example ~all"],
        "s1._domainkey.mail.good.example." | "s2._domainkey.mail.good.example." => &["v=DKIM1; k=rsa; p=MIIB"],
        "s3._domainkey.mail.good.example." => &["v=DKIM1; p="],
        // Of the domain above, which receivers fall back to.
        "_dmarc.good.example." => &["v=DMARC1; p=none; rua=mailto:ops@good.example"],
        "two.example." => &["v=spf1 -all", "v=spf1 include:_spf.mail.example ~all"],
        "open.example." => &["v=spf1 +all"],
        "_dmarc.open.example." => &["v=DMARC1; p=perhaps"],
        "_dmarc.two.example." => &["v=DMARC1; p=none", "v=DMARC1; p=reject"],
        _ => &[],
    }
}

/// A name server with that zone.
pub(super) async fn name_server() -> std::net::SocketAddr {
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::{RData, Record, rdata::TXT};
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let addr = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            let name = question.queries[0].name().clone();
            answer.add_query(question.queries[0].clone());
            let records = zone(&name.to_lowercase().to_string());
            if records.is_empty() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            for text in records {
                // In two parts, as long records are.
                let (head, tail) = text.split_at(text.len() / 2);
                let data = RData::TXT(TXT::new(vec![head.into(), tail.into()]));
                answer.add_answer(Record::from_rdata(name.clone(), 60, data));
            }
            socket.send_to(&answer.to_vec().expect("a message"), peer).await.expect("sent");
        }
    });
    addr
}

/// An API server that answers every question like this; the one of the lab cannot be made older.
pub(super) async fn old_api_server(folder: &std::path::Path) -> PathBuf {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "old",
        "clusters": [{"name": "old", "cluster": {"server": format!("http://{}", listener.local_addr().expect("its address"))}}],
        "users": [{"name": "old", "user": {}}],
        "contexts": [{"name": "old", "context": {"cluster": "old", "user": "old"}}],
    });
    let version = json!({"major": "1", "minor": "32", "gitVersion": "v1.32.9", "gitCommit": "", "gitTreeState": "",
        "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
    let routes = axum::Router::new().fallback(async move || axum::Json(version.clone()));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let path = folder.join("old");
    std::fs::write(&path, config.to_string()).expect("a file");
    path
}
