//! The operator against a real kube-apiserver: real processes, real HTTP, real SMTP. One scenario per test.

mod activation;
mod admission;
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
mod portal;
mod preflight;
mod rag;
mod repair;
mod sandbox;
mod signup;
mod support;
mod traces;
mod visitor;
mod webhooks;
