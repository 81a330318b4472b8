//! The groups in which `--help` and docs/cli.md list the commands: clap lists subcommands in one group only.

use clap::{Command, CommandFactory};

use super::Cli;

/// The program that was called. Both take every command; `kubectl tenant --help` leaves out those that run the
/// operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    TenantOperator,
    KubectlTenant,
}

/// Commands that are listed together.
pub(super) struct Group {
    pub title: &'static str,
    pub commands: &'static [&'static str],
}

/// For people who look after tenants.
const TENANTS: [Group; 7] = [
    Group { title: "Look at tenants", commands: &["list", "describe", "why", "history", "usage", "open", "logs"] },
    Group { title: "Look at customers", commands: &["funnel", "stuck"] },
    Group {
        title: "Act on tenants",
        commands: &["retry", "suspend", "resume", "confirm", "subscriptions", "settle-usage"],
    },
    Group { title: "Close and erase", commands: &["delete", "reactivate", "erase"] },
    Group { title: "Move and restore", commands: &["export", "import", "move", "adopt", "data", "recover"] },
    Group { title: "Sales and the waitlist", commands: &["leads", "admit", "invite"] },
    Group { title: "The installation", commands: &["preflight", "audit", "pin", "log-level", "completions"] },
];

/// For people and manifests that install the operator and run it.
const OPERATOR: Group =
    Group { title: "Run the operator", commands: &["controller", "web", "ledger", "crds", "lifecycle"] };

/// All groups, in the order in which they are listed.
pub(super) fn all() -> impl Iterator<Item = &'static Group> {
    TENANTS.iter().chain([&OPERATOR])
}

impl Program {
    /// What a person types.
    fn name(self) -> &'static str {
        match self {
            Self::TenantOperator => "tenant-operator",
            Self::KubectlTenant => "kubectl tenant",
        }
    }

    fn groups(self) -> impl Iterator<Item = &'static Group> {
        all().take(if self == Self::TenantOperator { usize::MAX } else { TENANTS.len() })
    }

    /// The last lines of `--help`.
    fn hint(self) -> String {
        let more = match self {
            Self::KubectlTenant => {
                let commands = OPERATOR.commands.join(", ");
                format!("`tenant-operator --help` also lists those that run the operator:\n{commands}.")
            }
            Self::TenantOperator => "All but the last group are also called as `kubectl tenant COMMAND`.".into(),
        };
        format!("`{} COMMAND --help` describes a command.\n{more}", self.name())
    }

    /// The command line, with a `--help` that lists the commands by group.
    pub(super) fn command(self) -> Command {
        let command = Cli::command().bin_name(self.name());
        let (header, literal) = (*command.get_styles().get_header(), *command.get_styles().get_literal());
        let width = self.groups().flat_map(|group| group.commands).map(|name| name.len()).max().unwrap_or_default();
        let list = |group: &Group| {
            let found = group.commands.iter().filter_map(|name| command.find_subcommand(name));
            let line = |found: &Command| {
                let about = found.get_about().map(ToString::to_string).unwrap_or_default();
                format!("  {literal}{:width$}{literal:#}  {about}\n", found.get_name())
            };
            format!("{header}{}:{header:#}\n{}\n", group.title, found.map(line).collect::<Vec<_>>().concat())
        };
        let lists = self.groups().map(list).collect::<Vec<_>>().concat();
        command.help_template(format!(
            "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{lists}{header}Options:{header:#}\n{{options}}\n\n{}",
            self.hint()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let mut grouped: Vec<_> = all().flat_map(|group| group.commands).copied().collect();
        grouped.sort_unstable();
        let command = Cli::command();
        let mut commands: Vec<_> =
            command.get_subcommands().filter(|found| !found.is_hide_set()).map(Command::get_name).collect();
        commands.sort_unstable();
        assert_eq!(grouped, commands, "name each command in one group of src/cli/groups.rs");
    }

    fn help(program: Program) -> String {
        program.command().render_long_help().to_string()
    }

    #[test]
    fn each_program_lists_its_commands_and_names_the_other() {
        let (plugin, operator) = (help(Program::KubectlTenant), help(Program::TenantOperator));
        let lists = |help: &str, name: &str| help.lines().any(|line| line.starts_with(&format!("  {name} ")));
        for group in &TENANTS {
            for (name, help) in group.commands.iter().flat_map(|name| [(name, &plugin), (name, &operator)]) {
                assert!(help.contains(&format!("\n{}:\n", group.title)) && lists(help, name), "{name}:\n{help}");
            }
        }
        for name in OPERATOR.commands {
            assert!(lists(&operator, name) && !lists(&plugin, name), "{name}:\n{operator}\n{plugin}");
        }
        assert!(plugin.contains("Usage: kubectl tenant ") && plugin.contains("`tenant-operator --help`"), "{plugin}");
        assert!(operator.contains("Usage: tenant-operator ") && operator.contains("`kubectl tenant "), "{operator}");
    }

    /// The template is not wrapped, and clap takes a brace in it for one of its own tags. The options are clap's.
    #[test]
    fn the_lists_fit_a_terminal() {
        for help in [help(Program::KubectlTenant), help(Program::TenantOperator)] {
            let ours = help.lines().filter(|line| !line.starts_with("      "));
            let wide: Vec<_> = ours.filter(|line| line.chars().count() > 100).collect();
            assert!(wide.is_empty() && !help.contains('{'), "{wide:#?}\n{help}");
        }
    }
}
