//! A server that speaks S3 as AWS does, with one bucket.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::{LIMIT, free_port};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BUCKET: &str = "ledgers";
/// What a request shows that is not a stranger's. The server checks no signature.
const AUTHORIZATION: &str =
    "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none";

/// The folder of its programs, which are installed once, and not by two tests at the same time.
fn programs() -> &'static str {
    static PROGRAMS: OnceLock<String> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let found = Command::new(format!("{ROOT}/tests/s3/programs")).output().expect("it runs");
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        String::from_utf8(found.stdout).expect("a path").trim().to_owned()
    })
}

/// The server, which ends with the test, and its objects with it.
pub struct S3 {
    child: Child,
    endpoint: String,
    http: reqwest::Client,
}

impl S3 {
    pub async fn start() -> Self {
        drop(rustls::crypto::ring::default_provider().install_default());
        let port = free_port();
        let mut command = Command::new(Path::new(programs()).join("moto_server"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        let child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let http = reqwest::Client::builder().timeout(LIMIT).build().expect("a client");
        let server = Self { child, endpoint: format!("http://127.0.0.1:{port}"), http };
        let start = Instant::now();
        let bucket = format!("{}/{BUCKET}", server.endpoint);
        while !server.http.put(&bucket).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(start.elapsed() < LIMIT, "there is no bucket");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        server
    }

    /// The URL of a folder in the bucket.
    pub fn url(folder: &str) -> String {
        format!("s3://{BUCKET}/{folder}")
    }

    /// The variables by which the tools of AWS find a server.
    pub fn variables(endpoint: &str) -> [(&'static str, &str); 5] {
        [
            ("AWS_ENDPOINT_URL", endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ]
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Whether it knows the keys of the tests. Those that it does not know get 403.
    pub async fn knows_keys(&self, knows: bool) {
        // The number of calls before it asks for a key of its own IAM.
        let calls = if knows { "1000000000" } else { "0" };
        let asked =
            self.http.post(format!("{}/moto-api/reset-auth", self.endpoint)).header("content-type", "text/plain");
        assert!(asked.body(calls).send().await.is_ok_and(|answer| answer.status().is_success()));
    }

    fn address(&self, name: &str) -> String {
        format!("{}/{BUCKET}/{name}", self.endpoint)
    }

    /// The names of all objects in a folder, in order.
    pub async fn names(&self, folder: &str) -> Vec<String> {
        let url = format!("{}/{BUCKET}?list-type=2&prefix={folder}/", self.endpoint);
        let listed = self.http.get(url).send().await.expect("it answers").text().await.expect("text");
        assert!(listed.contains("<ListBucketResult"), "{listed}");
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut names: Vec<_> = keys.map(str::to_owned).collect();
        names.sort_unstable();
        names
    }

    pub async fn read(&self, name: &str) -> Vec<u8> {
        let answer =
            self.http.get(self.address(name)).header("authorization", AUTHORIZATION).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{name}: {}", answer.status());
        answer.bytes().await.expect("an object").to_vec()
    }

    pub async fn write(&self, name: &str, bytes: Vec<u8>) {
        let answer = self.http.put(self.address(name)).body(bytes).send().await.expect("it answers");
        assert!(answer.status().is_success(), "{name}: {}", answer.status());
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
