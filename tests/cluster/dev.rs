//! `dev` and `demo` as a newcomer runs them, and every example of the README and the docs in the shell that they open.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::programs::program;
use crate::support::{BINARY, ROOT, control_plane, folder, said, signal};

const LIMIT: Duration = Duration::from_mins(2);

/// `dev` in a folder of its own, with no provider's real key in sight.
fn dev(folder: &Path) -> Command {
    let mut command = Command::new(program("tenant-operator-dev"));
    command.args(["--web-port", "0", "--folder"]).arg(folder).stdin(Stdio::null());
    for name in ["STRIPE_SECRET_KEY", "PINECONE_API_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", "SMTP_URL", "KUBECONFIG"]
    {
        command.env_remove(name);
    }
    command
}

/// The command lines of the processes that were started with something in this folder.
fn left_running(folder: &Path) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let lines = processes.filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(folder.to_str().expect("a path"))).collect()
}

#[test]
fn demo_does_the_main_job_and_leaves_nothing_running() {
    control_plane();
    let folder = folder("demo");
    let output = dev(&folder).arg("--demo").output().expect("it runs");
    let said = said(&output);
    assert!(output.status.success(), "{said}");
    for wanted in [
        "signs up",
        "Active",
        "RAG means retrieval-augmented generation",
        "[1] sample_",
        "thirty days of vacation",
        "[1] Vacation policy",
        "is declined (402)",
        "welcome e-mail is out",
        "100 % of the steps",
        "queries            2 of 10000",
        "documents          1 of 1000",
        "Where the seconds went",
    ] {
        assert!(said.contains(wanted), "{wanted:?} is missing: {said}");
    }
    assert_eq!(left_running(&folder), Vec::<String>::new());
}

#[test]
fn a_live_key_or_a_missing_tool_is_named_in_one_line() {
    let cases = [
        (vec![("STRIPE_SECRET_KEY", "sk_live_x")], "STRIPE_SECRET_KEY is a live key"),
        (vec![("STRIPE_SECRET_KEY", "rk_live_x")], "--allow-live"),
        (vec![("KUBEBUILDER_ASSETS", "/nowhere")], "KUBEBUILDER_ASSETS=/nowhere does not hold"),
        (vec![("PATH", "/nowhere"), ("XDG_CACHE_HOME", "/nowhere")], "Go 1.26 or later is needed"),
    ];
    for (set, wanted) in cases {
        let output = dev(&folder("refused")).env_remove("KUBEBUILDER_ASSETS").envs(set).output().expect("it runs");
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(wanted), "{wanted:?} is missing: {said}");
    }
}

/// The numbers of the processes whose command line holds both.
fn numbers(folder: &Path, part: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    let line = |path: PathBuf| std::fs::read_to_string(path.join("cmdline")).unwrap_or_default();
    let here = folder.to_str().expect("a path");
    let found = processes.filter(|p| {
        let line = line(p.path());
        line.contains(here) && line.split('\0').nth(1) == Some(part)
    });
    found.map(|p| p.file_name().to_string_lossy().into_owned()).collect()
}

/// `dev` once everything runs.
fn running(folder: &Path) -> Child {
    let child = dev(folder).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let start = Instant::now();
    while !folder.join("env").is_file() {
        assert!(start.elapsed() < LIMIT, "dev wrote no env file");
        std::thread::sleep(Duration::from_millis(100));
    }
    child
}

#[test]
fn a_terminal_that_is_closed_leaves_nothing_running() {
    let folder = folder("hangup");
    let child = running(&folder);
    assert_eq!(numbers(&folder, "controller").len(), 1);
    assert!(Command::new("kill").args(["-s", "HUP", &child.id().to_string()]).status().expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(left_running(&folder), Vec::<String>::new());
}

#[test]
fn a_part_that_ends_by_itself_is_named_with_its_last_lines() {
    let folder = folder("ended");
    let child = running(&folder);
    let web = numbers(&folder, "web");
    assert_eq!(web.len(), 1, "{web:?}");
    assert!(Command::new("kill").args(["-s", "KILL", &web[0]]).status().expect("kill runs").success());
    let output = child.wait_with_output().expect("it ends");
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: web ended with signal: 9"), "{said}");
    assert!(said.contains("listening on http://"), "no line of its log: {said}");
    assert_eq!(left_running(&folder), Vec::<String>::new());
}

/// A machine without the packages that the tests need, for `tests/install`: stand-ins of the programs that it calls.
struct Bare {
    folder: PathBuf,
    user: u32,
    sudo: bool,
    apt: Option<&'static str>,
}

impl Bare {
    /// What `tests/install` prints, and the calls of apt-get.
    fn install(&self, variables: &[(&str, &str)]) -> (Output, String) {
        use std::os::unix::fs::PermissionsExt;
        let _ = std::fs::remove_dir_all(&self.folder);
        std::fs::create_dir_all(&self.folder).expect("a folder");
        let log = self.folder.join("log");
        let program = |name: &str, script: &str| {
            let path = self.folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("executable");
        };
        program("id", &format!("echo {}", self.user));
        for name in ["env", "ls", "true"] {
            program(name, &format!("exec /bin/{name} \"$@\""));
        }
        if self.sudo {
            program("sudo", "[ $1 = -n ] && shift && echo sudo: \"$@\" && exec \"$@\"");
        }
        if let Some(ends) = self.apt {
            program("apt-get", &format!("echo \"$@\" >> {}; {ends}", log.display()));
        }
        let mut command = Command::new(format!("{ROOT}/tests/install"));
        command.env_clear().env("PATH", &self.folder).envs(variables.iter().copied());
        let output = command.output().expect("it runs");
        (output, std::fs::read_to_string(log).unwrap_or_default())
    }
}

#[test]
fn missing_tools_are_installed_where_possible_and_named_elsewhere() {
    let bare = |user, sudo, apt| Bare { folder: folder("bare"), user, sudo, apt };
    let (root, by_sudo) = (bare(0, false, Some("true")), bare(1000, true, Some("true")));
    for machine in [&root, &by_sudo] {
        let (output, calls) = machine.install(&[]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(calls.contains("-qq update\n") && calls.contains("install --yes"), "{calls}");
        for package in ["build-essential", "chromium", "prometheus", "nodejs", "python3-venv"] {
            assert!(calls.contains(&format!(" {package}")), "{package}: {calls}");
            assert!(said(&output).lines().any(|line| line.starts_with("Installing") && line.contains(package)));
        }
        assert_eq!(said(&output).contains("sudo: "), machine.sudo);
    }
    let forbidden = root.install(&[("INSTALL", "no")]);
    for (output, calls) in [forbidden, bare(1000, false, Some("true")).install(&[]), bare(0, false, None).install(&[])]
    {
        let line = said(&output);
        assert!(output.status.success() && calls.is_empty(), "{line}{calls}");
        assert!(
            line.lines().count() == 1 && line.contains("sudo apt-get install") && line.contains(" chromium"),
            "{line}"
        );
    }
    let broken = bare(0, false, Some("exit 100"));
    assert!(broken.install(&[]).0.status.success(), "the tests that need nothing more still run");
    assert!(!broken.install(&[("CI", "true")]).0.status.success(), "a package that is missing fails CI");
}

/// A running `dev`, and the shell that its `env` file makes.
pub struct Dev {
    child: Child,
    folder: PathBuf,
}

impl Dev {
    pub fn start(name: &str) -> Self {
        let folder = folder(name);
        let child = dev(&folder).stdout(Stdio::null()).spawn().expect("it starts");
        let (dev, start) = (Self { child, folder }, Instant::now());
        while !dev.folder.join("env").is_file() {
            assert!(start.elapsed() < LIMIT, "dev wrote no env file");
            std::thread::sleep(Duration::from_millis(100));
        }
        dev
    }

    pub fn shell(&self, script: &str) -> Output {
        let programs = [control_plane().kubectl.parent(), Path::new(BINARY).parent()];
        let programs: Vec<_> = programs.into_iter().flatten().map(|p| p.display().to_string()).collect();
        let path = format!("{}:{}", programs.join(":"), std::env::var("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell.arg("-euc").arg(format!(". {}/env\n{script}", self.folder.display()));
        shell.env("PATH", path).current_dir(ROOT).stdin(Stdio::null()).output().expect("a shell")
    }

    /// Ctrl-C.
    pub fn stop(mut self) {
        assert!(signal(&self.child, "INT"));
        assert!(self.child.wait().expect("it ends").success());
        assert_eq!(left_running(&self.folder), Vec::<String>::new());
    }
}

impl Drop for Dev {
    /// A test that failed lets it stop its control plane, too.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) && signal(&self.child, "INT") {
            let _ = self.child.wait();
        }
    }
}

/// The fenced examples of a page, by language, in their order.
fn examples(page: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(page)).expect("the page");
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks.filter_map(|b| b.split_once('\n')).map(|(language, code)| (language.into(), code.into())).collect()
}

/// The make targets have tests of their own; everything else runs here, page by page.
#[test]
fn every_example_of_the_readme_and_the_docs_works() {
    let dev = Dev::start("dev");
    // The shell's variables are those of its sandbox, which a second start does not take for real providers.
    let second = dev.shell(&format!(
        "{} --demo --web-port 0 --folder {}",
        program("tenant-operator-dev").display(),
        folder("second").display()
    ));
    assert!(second.status.success(), "{}", said(&second));
    let variables = "KUBECONFIG WEB_URL SANDBOX_URL PINECONE_URL STRIPE_URL OPENAI_URL SMTP_ADDR MAILBOX_URL ADMIN_TOKEN \
                     STRIPE_WEBHOOK_SECRET PINECONE_API_KEY STRIPE_SECRET_KEY OPENAI_API_KEY USAGE_EVENTS_TOKEN ADMIN_URL";
    let missing = dev.shell(&format!("for name in {variables}; do printenv $name > /dev/null || echo $name; done"));
    assert_eq!(String::from_utf8_lossy(&missing.stdout), "", "not in the env file");
    // The warning is about the admission policies, which come with the chart.
    let preflight = dev.shell("tenant-operator preflight");
    assert!(
        preflight.status.code() == Some(2) && said(&preflight).contains(" 0 failed, 1 warnings"),
        "{}",
        said(&preflight)
    );
    let mut pages: Vec<_> = std::fs::read_dir(format!("{ROOT}/docs"))
        .expect("docs")
        .map(|entry| PathBuf::from("docs").join(entry.expect("an entry").file_name()))
        .filter(|page| page.extension().is_some_and(|ending| ending == "md"))
        .collect();
    pages.sort();
    pages.insert(0, PathBuf::from("README.md"));
    let mut run = 0;
    for page in pages {
        for (language, code) in examples(&page) {
            let script = match language.as_str() {
                "yaml" => format!("kubectl apply -f - <<'EOF'\n{code}\nEOF"),
                "python" => format!("python3 - <<'EOF'\n{code}\nEOF"),
                "sh" if !code.starts_with("make ") => code,
                _ => continue,
            };
            let output = dev.shell(&script);
            assert!(output.status.success(), "{}:\n{script}\n{}", page.display(), said(&output));
            run += 1;
        }
    }
    assert!(run >= 8, "{run} examples were found");
    dev.stop();
}
