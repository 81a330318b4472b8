//! Which tenants are listed, and in which order.

use kube::ResourceExt;
use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

use crate::admin::attention::{Kind, items};
use crate::admin::pages::parameters::{ParameterError, Parameters};
use crate::admin::pages::words::{Stage, list_href};
use crate::api::{Tenant, Timestamp, Usage};

/// The longest text that is searched for, in characters.
const LONGEST: usize = 200;
/// The longest name of a plan, as the API server takes it.
const LONGEST_PLAN: usize = 253;
/// The last page that can be asked for: more than the API server can hold Tenants.
const LAST_PAGE: i64 = 1_000_000;

/// The order of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Sort {
    /// The newest first.
    #[default]
    Created,
    /// By the company.
    Company,
    /// By the phase, in the order of a tenant's life.
    Phase,
    /// Who asks most first.
    Used,
}

impl Sort {
    pub fn name(self) -> &'static str {
        self.into()
    }

    pub const fn label(self) -> &'static str {
        match self {
            Self::Created => "newest first",
            Self::Company => "company",
            Self::Phase => "phase",
            Self::Used => "most used first",
        }
    }
}

/// In which form the list is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum Form {
    /// As a page of some.
    #[default]
    #[strum(serialize = "html")]
    Page,
    /// All of them, for a spreadsheet.
    Csv,
}

/// What the address asks for.
#[derive(Clone, Debug)]
pub struct Filter {
    pub search: String,
    pub phase: Option<Stage>,
    pub plan: Option<String>,
    pub attention: Option<Kind>,
    pub sort: Sort,
    /// From 1 on.
    pub page: usize,
    pub form: Form,
}

/// When the object was created.
pub fn created(tenant: &Tenant) -> Option<Timestamp> {
    tenant.creation_timestamp().map(|at| at.0.into())
}

impl Filter {
    /// Of the query in an address.
    pub fn of(query: Option<&str>) -> Result<Self, ParameterError> {
        let known = ["search", "phase", "plan", "attention", "sort", "page", "format"];
        let parameters = Parameters::of(query, &known)?;
        let text = |name: &str, longest: usize| match parameters.get(name) {
            Some(text) if text.chars().count() > longest => {
                Err(ParameterError::new(name, format!("must have at most {longest} characters")))
            }
            text => Ok(text.map(str::to_owned)),
        };
        let names: Vec<_> = Stage::all().map(|stage| stage.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let kinds: Vec<_> = Kind::iter().map(Kind::name).collect();
        let sorts: Vec<_> = Sort::iter().map(Sort::name).collect();
        let page = parameters.number("page", 1, LAST_PAGE)?;
        Ok(Self {
            search: text("search", LONGEST)?.unwrap_or_default(),
            phase: parameters.one_of("phase", |name| name.parse().ok(), &names)?,
            plan: text("plan", LONGEST_PLAN)?,
            attention: parameters.one_of("attention", |name| name.parse().ok(), &kinds)?,
            sort: parameters.one_of("sort", |name| name.parse().ok(), &sorts)?.unwrap_or_default(),
            page: usize::try_from(page).unwrap_or(1),
            form: parameters.one_of("format", |name| name.parse().ok(), &["html", "csv"])?.unwrap_or_default(),
        })
    }

    /// The address of another page of the same list, or of the list in another form.
    pub fn href(&self, page: usize, form: Form) -> String {
        let (phase, page) = (self.phase.map(|stage| stage.to_string()), page.to_string());
        let all = [
            ("search", self.search.as_str()),
            ("phase", phase.as_deref().unwrap_or_default()),
            ("plan", self.plan.as_deref().unwrap_or_default()),
            ("attention", self.attention.map(Kind::name).unwrap_or_default()),
            ("sort", if self.sort == Sort::default() { "" } else { self.sort.name() }),
            ("page", if page == "1" { "" } else { page.as_str() }),
            ("format", if form == Form::Csv { "csv" } else { "" }),
        ];
        let set: Vec<_> = all.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        list_href(&set)
    }

    /// The tenants that match, in order.
    pub fn matching<'a>(&self, all: impl Iterator<Item = &'a Tenant>, now: Timestamp) -> Vec<&'a Tenant> {
        let wanted = self.search.to_lowercase();
        let mut found: Vec<_> = all.filter(|tenant| self.takes(tenant, &wanted, now)).collect();
        // The newest first among those that are equal.
        found.sort_by_cached_key(|tenant| std::cmp::Reverse(created(tenant)));
        match self.sort {
            Sort::Created => {}
            Sort::Company => found.sort_by_cached_key(|tenant| tenant.spec.company_name.to_lowercase()),
            Sort::Phase => found.sort_by_key(|tenant| Stage::of(tenant)),
            Sort::Used => found.sort_by_cached_key(|tenant| std::cmp::Reverse(Usage::shown(tenant).queries)),
        }
        found
    }

    fn takes(&self, tenant: &Tenant, wanted: &str, now: Timestamp) -> bool {
        let place = tenant.place();
        let names = [place.name, &tenant.spec.company_name, &tenant.spec.admin_email, tenant.tenant_id()];
        self.phase.is_none_or(|wanted| Stage::of(tenant) == wanted)
            && self.plan.as_deref().is_none_or(|plan| tenant.plan_in_force() == plan)
            && (wanted.is_empty() || names.into_iter().any(|name| holds(name, wanted)))
            && self.attention.is_none_or(|kind| items(tenant, now).iter().any(|item| item.kind == kind))
    }
}

/// Whether a text has another one in it, which is in small letters.
fn holds(text: &str, wanted: &str) -> bool {
    if text.is_ascii() {
        // Most names are, and need no copy.
        let (text, wanted) = (text.as_bytes(), wanted.as_bytes());
        return text.len() >= wanted.len() && text.windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted));
    }
    text.to_lowercase().contains(wanted)
}
