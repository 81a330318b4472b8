//! The figures as CSV, for spreadsheets.

use super::activation::{ActivationMetrics, Target};
use super::durations::Durations;
use super::funnel::Funnel;
use super::journey::Customer;
use super::stuck::Stuck;
use crate::plain::{CsvError, CsvLines};

impl Funnel {
    /// A line for each milestone.
    pub fn csv(&self) -> Result<String, CsvError> {
        let mut lines = CsvLines::new(&[
            "milestone",
            "customers",
            "previous",
            "conversion_percentage",
            "drop_off_percentage",
            "median_minutes",
            "p75_minutes",
            "p90_minutes",
        ])?;
        for step in &self.steps {
            let time = |of: fn(&Durations) -> f64| decimal(step.time_from_previous.as_ref().map(of));
            lines.push([
                step.milestone.name().to_owned(),
                step.customers.to_string(),
                step.previous.map_or_else(String::new, |previous| previous.name().to_owned()),
                decimal(step.conversion),
                decimal(step.drop_off),
                time(|t| t.median_minutes),
                time(|t| t.p75_minutes),
                time(|t| t.p90_minutes),
            ])?;
        }
        lines.text()
    }
}

impl Stuck {
    /// A line for each customer, with the list that names them.
    pub fn csv(&self) -> Result<String, CsvError> {
        let mut lines = CsvLines::new(&[
            "list",
            "namespace",
            "name",
            "tenant_id",
            "company",
            "email",
            "plan",
            "hours_since_signup",
            "hours_waiting",
            "last_query",
            "recommended_action",
        ])?;
        for (list, customers) in self.lists() {
            for stuck in customers {
                let Customer { namespace, name, tenant_id, company, email, plan } = stuck.customer.clone();
                lines.push([
                    list.to_owned(),
                    namespace,
                    name,
                    tenant_id,
                    company,
                    email,
                    plan,
                    stuck.hours_since_signup.to_string(),
                    stuck.hours_waiting.to_string(),
                    stuck.last_query.map_or_else(String::new, |at| at.to_string()),
                    stuck.recommended_action.to_owned(),
                ])?;
            }
        }
        lines.text()
    }
}

impl ActivationMetrics {
    /// A line for each figure, with its target where it has one.
    pub fn csv(&self) -> Result<String, CsvError> {
        let mut lines = CsvLines::new(&["figure", "value", "target", "met"])?;
        for (name, value) in self.counts() {
            lines.push([name.to_owned(), value.to_string(), String::new(), String::new()])?;
        }
        for (name, value) in self.rates() {
            let target = self.targets.of(name);
            let (target, met) = (target.map(|t| t.target), target.and_then(|Target { met, .. }| met));
            let met = met.map_or_else(String::new, |met| met.to_string());
            lines.push([name.to_owned(), decimal(value), decimal(target), met])?;
        }
        lines.text()
    }
}

fn decimal(number: Option<f64>) -> String {
    number.map_or_else(String::new, |number| format!("{number:.1}"))
}

#[cfg(test)]
mod tests {
    use super::super::{Journey, Milestone, Span, stuck};
    use super::*;
    use crate::api::Timestamp;

    #[test]
    fn a_site_without_customers_gets_a_line_for_every_milestone() {
        let csv = Funnel::of(&[], Span::days_before(Timestamp::from_second(0), 30)).csv().expect("a CSV");
        assert_eq!(csv.lines().count(), 11);
        assert_eq!(csv.lines().nth(3), Some("payment,0,,,,,,"));
    }

    #[test]
    fn a_company_whose_name_is_a_formula_stays_text() {
        let mut journey = Journey::example("acme", 0, &[(Milestone::Provisioned, 60)]);
        journey.customer.company = "=HYPERLINK(\"https://evil.example\")".into();
        let csv = stuck(&[journey], Timestamp::from_second(100 * 3600)).csv().expect("a CSV");
        let line = csv.lines().nth(1).expect("a customer");
        assert!(line.starts_with("stuck_after_payment,tenants,acme,id-acme,\"'=HYPERLINK("), "{line}");
    }

    #[test]
    fn each_figure_has_a_line_and_those_with_a_target_say_whether_it_is_met() {
        let journey = Journey::example("acme", 0, &[(Milestone::Payment, 30), (Milestone::Provisioned, 60)]);
        let metrics = ActivationMetrics::of(&[journey], Span::days_before(Timestamp::from_second(3600), 30));
        let csv = metrics.csv().expect("a CSV");
        for line in [
            "total_signups,1,,",
            "activation_rate,0.0,70.0,false",
            "provisioning_success_rate,100.0,95.0,true",
            "wizard_within_24h_rate,,50.0,",
        ] {
            assert!(csv.lines().any(|there| there == line), "{line} is missing in {csv}");
        }
    }
}
