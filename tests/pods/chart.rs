//! The chart before it is installed: rendered in every variety, judged by the API server, and what it says of wrong
//! input.

use std::process::Output;

use serde_json::json;

use crate::node::Node;
use crate::release::{CHART, NAMESPACE};
use crate::step;

const MINIMAL: &str = "sandbox.enabled=true";
const HA: &str = "controller.replicas=2,web.replicas=3,ledger.replicas=2,ledger.url=postgres://ledger@db/ledger,web.autoscaling.enabled=true,networkPolicy.enabled=true,\
                  controller.priorityClassName=system-cluster-critical";
const SCOPED: &str = "watchNamespaces={rag,other},signupNamespace=other,admission.enabled=false,crds.install=false";
const EVERYTHING: &str = "web.clientIp=RightmostXForwardedFor,web.ingress.enabled=true,web.ingress.hosts={app.example.com},web.httpRoute.enabled=true,\
                          web.httpRoute.parentRefs[0].name=gateway,metrics.serviceMonitor.enabled=true,\
                          metrics.prometheusRule.enabled=true,metrics.dashboard.enabled=true,\
                          dkimSelectors={s1},traces.endpoint=http://collector:4318,\
                          networkPolicy.enabled=true,image.pullSecrets={pull},image.digest=sha256:0,\
                          commonLabels.team=rag,commonAnnotations.owner=platform,web.service.type=LoadBalancer,\
                          controller.extraEnv[0].name=TZ,controller.extraEnv[0].value=UTC,\
                          controller.extraVolumes[0].name=more,controller.extraVolumes[0].secret.secretName=more,\
                          controller.extraVolumeMounts[0].name=more,controller.extraVolumeMounts[0].mountPath=/more,\
                          mailTemplates=mails,disposableDomains=disposable,waitlist=true,emailVerification=beforePayment,\
                          captcha.provider=turnstile,captcha.siteKey=1x,credentials.captchaSecretKey.existingSecret=captcha,\
                          credentials.stripePortalKey.existingSecret=portal,dpaUrl=https://example.com/dpa,\
                          credentials.alertWebhookUrl.existingSecret=alerts,trustedCa.configMap=company-ca,\
                          credentials.webPineconeApiKey.existingSecret=web,credentials.webOpenaiApiKey.existingSecret=web,\
                          exports.webExistingSecret=s3web,exports.url=s3://bucket/exports,\
                          pinecone.regions.us-east-1=rag,pinecone.regions.eu-central-1=rag-eu,exports.regions.eu-central-1=s3://eu/exports,\
                          ledger.snapshots.interval=10m,ledger.persistence.storageClass=fast,ledger.persistence.size=20Gi,\
                          admin.enabled=true,admin.url=https://admin.example.com,admin.from[0].podSelector.matchLabels.app=proxy,\
                          ledger.extraEnv[0].name=TZ,ledger.extraEnv[0].value=UTC,ledger.serviceAccount.annotations.role=x,\
                          exports.region=eu-central-1,exports.endpoint=https://s3.example.com,exports.existingSecret=s3";

/// Renders and applies without keeping anything: the API server is the judge.
pub fn every_variety_is_valid(node: &Node, values: &str) {
    // What is applied without being kept makes no namespace for the signups of this release.
    for namespace in ["other", "judged-tenants"] {
        node.kubectl(&["create", "namespace", namespace]);
    }
    // Those of Gateway API and Prometheus Operator: their objects are judged as well.
    for definition in crate::binaries::foreign_definitions() {
        node.kubectl(&["apply", "--server-side", "-f", &definition.display().to_string()]);
    }
    node.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]);
    for (what, set) in [("minimal", MINIMAL), ("HA", HA), ("scoped", SCOPED), ("everything", EVERYTHING)] {
        node.helm(&["lint", "--strict", CHART, "-f", values, "--set", set]);
        let rendered =
            node.helm(&["template", "judged", CHART, "-n", NAMESPACE, "--skip-tests", "-f", values, "--set", set]);
        let path = node.folder.join("rendered.yaml");
        std::fs::write(&path, rendered).expect("a file");
        let path = path.display().to_string();
        let said = node.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", &path]);
        assert!(said.lines().count() > 15, "{what}: {said}");
        let foreign = ["httproute", "servicemonitor", "prometheusrule"].iter().all(|kind| said.contains(kind));
        assert_eq!(foreign, what == "everything", "{what}: {said}");
    }
    step("every variety of the chart passes helm lint --strict and the API server's strict validation");
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success(), "it was taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One clear line each, before anything is installed.
pub fn wrong_input_is_refused(node: &Node, values: &str) {
    let install = |set: &str| {
        let args = ["upgrade", "rag", CHART, "-n", NAMESPACE, "-f", values, "--dry-run=server", "--set", set];
        refusal(&node.try_helm(&args))
    };
    for (set, says) in [
        ("web.replica=3", "additional properties 'replica' not allowed"),
        ("controller.replicas=two", "got string, want integer"),
        ("uploadLimit=soon", "does not match pattern"),
        ("uploadLimit=1.5d", "does not match pattern"),
        ("retryWaits=soon", "does not match pattern"),
        ("retryWaits=", "does not match pattern"),
        ("image.pullPolicy=Sometimes", "value must be one of"),
        ("controller.podLabels.round=2", "got number, want string"),
        ("frontendUrl=", "frontendUrl is not set: set it to the URL"),
        ("fromEmail=", "fromEmail is not set"),
        ("credentials.existingSecret=", "no Secret is named for STRIPE_SECRET_KEY: set credentials.existingSecret"),
        ("credentials.existingSecret=absent", "Secret rag/absent not found: create it with the key STRIPE_SECRET_KEY"),
        ("credentials.smtpUrl.key=SMTP", "Secret rag/providers has no key SMTP: add it"),
        ("watchNamespaces={other},signupNamespace=rag", "signupNamespace rag is not in watchNamespaces"),
        ("web.clientIp=RightmostXForwardedFor,web.ingress.enabled=true", "web.ingress.hosts is empty"),
        ("web.ingress.enabled=true", "web.clientIp is ConnectInfo behind an Ingress"),
        ("web.httpRoute.enabled=true", "web.clientIp is ConnectInfo behind an Ingress"),
        ("signupNamespace=rag", "signups would share namespace rag with the release"),
        ("trustedCa.configMap=a,trustedCa.secret=b", "are both set: set one of them"),
        ("credentials.webPineconeApiKey.existingSecret=absent", "Secret rag/absent not found"),
        ("captcha.provider=friendly", "value must be one of"),
        ("captcha.provider=turnstile", "captcha.provider is set: set captcha.siteKey"),
        ("emailVerification=never", "value must be one of"),
        ("ledger.replicas=2", "one process owns the ledger's volume: set ledger.existingSecret"),
        ("ledger.existingSecret=absent", "Secret rag/absent with the key LEDGER_URL not found"),
        ("ledger.existingSecret=a,ledger.url=postgres://db", "are both set: set one of them"),
        ("ledger.events.existingSecret=absent", "Secret rag/absent with the key EVENTS_URL not found"),
        (
            "ledger.events.existingSecret=a,ledger.events.url=clickhouse://db/d",
            "ledger.events.existingSecret are both set",
        ),
        ("admin.enabled=true", "Secret rag/providers with the key ADMIN_TOKEN not found: create it with the output"),
        ("ledger.persistence.size=9Gi", "Kubernetes changes no volume of a StatefulSet"),
        ("ledger.snapshots.interval=often", "does not match pattern"),
    ] {
        let said = install(set);
        assert!(said.contains(says), "{set}: {said}");
    }
    step("wrong values are refused, each with one clear line");
}

/// What the first release leaves no room for.
pub fn a_second_release_and_an_older_chart_are_refused(node: &Node, values: &str) {
    let second = ["install", "second", CHART, "-n", "other", "-f", values, "--set", "credentials.verify=false"];
    let said = refusal(&node.try_helm(&second));
    assert!(said.contains("belong to release rag in namespace rag: set crds.install=false"), "{said}");
    // Following that advice alone would make two controllers work on the same Tenants.
    let overlapping = [&second[..], &["--set", "crds.install=false"]].concat();
    let said = refusal(&node.try_helm(&overlapping));
    assert!(said.contains("release rag in namespace rag already serves the Tenants of all namespaces"), "{said}");
    let newer = json!({"metadata": {"annotations": {"tenant-operator.dev/crd-revision": "999"}}}).to_string();
    let definition = "tenants.tenant-operator.dev";
    let before = node.get(&["crd", definition])["metadata"]["annotations"]["tenant-operator.dev/crd-revision"].clone();
    node.kubectl(&["patch", "crd", definition, "--type=merge", "-p", &newer]);
    let said = refusal(&node.try_helm(&["upgrade", "rag", CHART, "-n", NAMESPACE, "-f", values]));
    assert!(said.contains("(revision 999) are newer than this chart's"), "{said}");
    let back = json!({"metadata": {"annotations": {"tenant-operator.dev/crd-revision": before}}}).to_string();
    let patch = ["patch", "crd", definition, "--type=merge", "-p", &back];
    let said = refusal(&node.try_kubectl(&patch));
    assert!(said.contains("is older than the installed one (revision 999)"), "{said}");
    node.kubectl(&[&patch[..], &["--as=restorer", "--as-group=system:masters"]].concat());
    step("a second release and an older chart are refused, each with one clear line");
}

/// What kube-score finds and we do otherwise, with the reason.
const ANSWERED: [&str; 5] = [
    // A limit throttles a pod that has work while the node idles; the request is what scheduling needs.
    "--ignore-container-cpu-limit",
    // Nothing is written: the root is read-only. A node that does not isolate local storage could not take the pods.
    "--ignore-test=container-ephemeral-storage-request-and-limit",
    // The tag is a version, whose image never changes.
    "--ignore-test=container-image-pull-policy",
    // Topology spread constraints do the same, over zones as well.
    "--ignore-test=deployment-has-host-podantiaffinity",
    // What a provider's addresses are is not ours to know: policies limit who comes in.
    "--ignore-test=pod-networkpolicy",
];

/// Every finding of kube-score's is answered.
pub fn kube_score_has_nothing_to_add(node: &Node, values: &str) {
    let set = "networkPolicy.enabled=true";
    let rendered =
        node.helm(&["template", "judged", CHART, "-n", NAMESPACE, "--skip-tests", "-f", values, "--set", set]);
    let path = node.folder.join("judged.yaml");
    std::fs::write(&path, rendered).expect("a file");
    let kube_score = crate::binaries::kube_score();
    let score = |ignore: &[&str]| {
        let output =
            std::process::Command::new(&kube_score).arg("score").arg(&path).args(ignore).output().expect("it runs");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (good, said) = score(&ANSWERED);
    assert!(good, "{said}");
    assert!(!score(&[]).0, "kube-score still finds what the chart explains");
    step("kube-score finds nothing that is not answered");
}
