//! The mail server.

use futures::FutureExt;

use super::{Check, CheckOutcome, Target};
use crate::lifecycle::Fault;

pub const CHECKS: &[Check] = &[
    Check {
        name: "mail/smtp",
        blocks_start: false,
        title: "the mail server accepts the login",
        about: "Customers get their log-in link by e-mail.",
        needs: None,
        writes: false,
        run: |target| smtp(target).boxed(),
    },
    Check {
        name: "mail/test-mail",
        blocks_start: false,
        title: "a test e-mail is accepted",
        about: "Runs with --test-mail ADDRESS only. Check whether it arrived in the inbox or as spam.",
        needs: Some("mail/smtp"),
        writes: true,
        run: |target| test_mail(target).boxed(),
    },
];

async fn smtp(target: &Target) -> CheckOutcome {
    match &target.mail {
        None => CheckOutcome::failed(
            "SMTP_URL is not set",
            "Set it to your mail server, such as smtps://user:password@smtp.example.com",
        ),
        Some(Err(why)) => CheckOutcome::failed(why.clone(), "Correct SMTP_URL or FROM_EMAIL"),
        Some(Ok(mail)) => match mail.check().await {
            Ok(()) => CheckOutcome::Ok(String::new()),
            Err(error) if error.reason == Fault::Refused => {
                CheckOutcome::failed(error.message, "Correct the user and password in SMTP_URL")
            }
            Err(error) => CheckOutcome::of(target, &error, "Check the host and port in SMTP_URL"),
        },
    }
}

async fn test_mail(target: &Target) -> CheckOutcome {
    let Some(to) = &target.test_mail else { return CheckOutcome::Skipped("asked for with --test-mail ADDRESS".into()) };
    let Some(Ok(mail)) = &target.mail else { return CheckOutcome::Skipped(String::new()) };
    match mail.send_test(to).await {
        Ok(()) => CheckOutcome::Ok(format!("sent to {to}")),
        Err(error) => CheckOutcome::failed(
            error.message,
            "Check that the mail server may send as FROM_EMAIL, and that the address is right",
        ),
    }
}
