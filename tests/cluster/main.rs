//! The operator against a real kube-apiserver: real processes, real HTTP, real SMTP. One scenario per test.

mod browser;
mod conformance;
mod deletion;
mod dev;
mod fairness;
mod faults;
mod internet;
mod kill;
mod kubectl;
mod links;
mod manifests;
mod money;
mod ownership;
mod pages;
mod preflight;
mod rag;
mod repair;
mod sandbox;
mod signup;
mod support;
mod traces;
mod visitor;
mod webhooks;
