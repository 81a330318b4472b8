//! The operator against a real kube-apiserver: real processes, real HTTP, real SMTP. One scenario per test.

mod deletion;
mod dev;
mod faults;
mod judges;
mod kill;
mod manifests;
mod repair;
mod sandbox;
mod signup;
mod support;
mod webhooks;
