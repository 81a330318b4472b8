//! For people who have no account yet, or cannot get into it: signups, links by e-mail, passwords and leads.

pub mod accounts;
pub mod admission;
pub mod leads;
pub mod links;
pub mod password;
pub mod signup;
pub mod signup_form;
