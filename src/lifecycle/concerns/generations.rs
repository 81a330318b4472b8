//! The namespaces that the vector store holds for a tenant, compared with the one that its object names. A restored
//! backup may name an older generation than the one with the customer's documents, so a namespace that the object does
//! not know is shown and never deleted, and questions are answered from the namespace that holds the documents.

use super::notices;
use crate::api::conditions::DATA_IN_ONE_PLACE;
use crate::api::{ConditionStatus, data_namespace};
use crate::lifecycle::status::Draft;
use crate::lifecycle::{Decision, Effect, Found, Input, Notice, Provider};

/// The next step for the namespaces of other generations.
pub enum Look {
    /// No other generation blocks the work.
    Clear,
    /// Do this next.
    Next(Decision),
    /// An admin must choose. The condition and the alert ask for it.
    Unclear,
}

impl Look {
    fn of(decision: Option<Decision>) -> Self {
        decision.map_or(Self::Unclear, Self::Next)
    }
}

/// Checks an Active tenant without a move of data under way.
pub fn follow(input: &Input) -> Look {
    let asked = input.tenant.chosen.is_some() || input.observed.leftover.is_some();
    let shown = is_unclear(input) && input.observed.resync;
    if asked || shown { settle(input) } else { Look::Clear }
}

/// Checks an object whose tenant was served before, as after a restore or a lost namespace, before anything is created
/// for it. An empty namespace beside the documents would hide them.
pub fn before_making(input: &Input) -> Option<Decision> {
    let tenant = input.tenant;
    let served_before = tenant.uid != tenant.tenant_id() || tenant.status.provisioned_at.is_some();
    if !served_before || input.observed.namespace || input.observed.pending {
        return None;
    }
    let Some(found) = &input.observed.found else { return Some(Decision::Act(vec![Effect::FindData])) };
    if in_use(input, found).is_some_and(|here| here.documents) {
        return None;
    }
    Some(serve(input, rivals(input, found).into_iter().max_by_key(|f| (f.vectors, f.generation))?))
}

/// Compares all generations. Deletes those that are superseded, serves from the one with the documents, and asks for a
/// choice if more than one holds documents.
pub fn settle(input: &Input) -> Look {
    let Some(found) = &input.observed.found else { return Look::Next(Decision::Act(vec![Effect::FindData])) };
    let here = in_use(input, found);
    if let Some(chosen) = input.tenant.chosen {
        return Look::of(choose(input, found, chosen));
    }
    if let Some(gone) = others(input, found).find(|other| may_go(input, found, other)) {
        return Look::Next(delete(gone.generation));
    }
    let rivals = rivals(input, found);
    let Some(best) = rivals.iter().copied().max_by_key(|f| (f.vectors, f.generation)) else {
        if !is_unclear(input) {
            return Look::Clear;
        }
        let mut draft = Draft::new(input);
        draft.status.namespace = Some(input.tenant.data_namespace());
        in_one_place(&mut draft);
        return draft.changed().map_or(Look::Clear, Look::Next);
    };
    if here.is_none_or(|here| !here.documents) {
        return Look::of(Some(serve(input, best)));
    }
    let name = &input.tenant.name;
    let message = format!(
        "More than one {} namespace holds documents: {}. Questions are answered from {}. Nothing is deleted, and no \
         documents are moved, until you choose one with `kubectl tenant data choose {name} --generation N`, which deletes the others",
        Provider::VectorStore,
        counts(input, found),
        input.tenant.data_namespace(),
    );
    Look::of(show(input, found, "TwoGenerations", &message))
}

/// Deletes the vectors of a generation that a recorded move left or gave up, if the generation in use holds what it
/// holds.
pub fn drop(input: &Input, generation: u32) -> Look {
    if is_done(input, generation) {
        return Look::Clear;
    }
    let Some(found) = &input.observed.found else { return Look::Next(Decision::Act(vec![Effect::FindData])) };
    match found.iter().find(|f| f.generation == generation) {
        Some(other) if !may_go(input, found, other) => settle(input),
        // The step counts again before it deletes a namespace that is not listed yet.
        _ => Look::Next(delete(generation)),
    }
}

/// Whether more than one namespace, or another one, held the documents when they were counted last.
pub fn is_unclear(input: &Input) -> bool {
    input.tenant.status.data_unclear_since.is_some()
}

fn in_one_place(draft: &mut Draft) {
    draft.status.data_unclear_since = None;
    draft.recovered(DATA_IN_ONE_PLACE, "One namespace holds the documents");
}

fn delete(generation: u32) -> Decision {
    Decision::Act(vec![Effect::DropNamespace { generation }])
}

fn is_done(input: &Input, generation: u32) -> bool {
    input.observed.done.contains(&Effect::DropNamespace { generation })
}

fn in_use<'a>(input: &Input, found: &'a [Found]) -> Option<&'a Found> {
    found.iter().find(|f| f.generation == input.tenant.data_generation())
}

/// The generations that are not in use and were not deleted in this reconcile.
fn others<'a>(input: &'a Input, found: &'a [Found]) -> impl Iterator<Item = &'a Found> {
    let in_use = input.tenant.data_generation();
    found.iter().filter(move |f| f.generation != in_use && !is_done(input, f.generation))
}

fn rivals<'a>(input: &'a Input, found: &'a [Found]) -> Vec<&'a Found> {
    others(input, found).filter(|f| f.documents).collect()
}

/// Whether nothing is lost with a generation: it holds no documents, or the object records that it was superseded or is
/// a copy, and the generation in use holds at least as much.
fn may_go(input: &Input, found: &[Found], other: &Found) -> bool {
    if !other.documents {
        return true;
    }
    // Counts can be equal where the documents differ.
    if holds_its_own(input, other.generation) {
        return false;
    }
    let generation = input.tenant.data_generation();
    let migration = input.tenant.status.migration.as_deref();
    let Some(here) = in_use(input, found).filter(|here| here.documents) else { return false };
    // What the last pass of the move compared is what the generation in use held at the switch. The customer may have
    // deleted documents since.
    let carried = migration
        .filter(|m| m.generation == generation && other.generation + 1 == generation)
        .is_some_and(|m| other.vectors <= m.vectors);
    let superseded = other.generation < generation;
    let copy = migration.is_some_and(|m| m.generation == other.generation);
    carried || ((superseded || copy) && here.vectors >= other.vectors)
}

/// Whether this reconcile read that a generation holds vectors that the one in use does not have: a step compared the
/// two before a deletion, or a move did before it copied.
fn holds_its_own(input: &Input, generation: u32) -> bool {
    let ahead = input.observed.migration.as_ref().and_then(|seen| seen.problem.as_ref()).is_some_and(|p| p.ahead);
    let copy = input.tenant.status.migration.as_deref().is_some_and(|m| m.generation == generation);
    input.observed.only_there.contains(&generation) || (ahead && copy)
}

/// An admin chose a generation: serves from it, and deletes the others.
fn choose(input: &Input, found: &[Found], chosen: u32) -> Option<Decision> {
    if !found.iter().any(|f| f.generation == chosen) {
        let message = format!(
            "Generation {chosen} was chosen, and {} has no such namespace: there are {}. Choose one of these",
            Provider::VectorStore,
            counts(input, found)
        );
        return show(input, found, "NoSuchGeneration", &message);
    }
    if input.tenant.data_generation() != chosen {
        return Some(Decision::Act(vec![Effect::ServeFrom { generation: chosen }]));
    }
    if let Some(other) = others(input, found).next() {
        return Some(delete(other.generation));
    }
    let mut draft = Draft::new(input);
    draft.status.migration = None;
    draft.status.namespace = Some(input.tenant.data_namespace());
    in_one_place(&mut draft);
    Some(draft.changed().unwrap_or(Decision::Act(vec![Effect::ForgetChoice])))
}

/// The generation in use holds no documents, and another one does. Alerts the platform team, and serves from that one.
fn serve(input: &Input, best: &Found) -> Decision {
    let found = input.observed.found.as_deref().unwrap_or_default();
    let name = data_namespace(input.tenant.tenant_id(), best.generation);
    let message = format!(
        "The object names the {} namespace {}, which holds no documents, as after the restore of an older backup: {}. Questions are \
         answered from {name}",
        Provider::VectorStore,
        input.tenant.data_namespace(),
        counts(input, found),
    );
    let serve = Decision::Act(vec![Effect::ServeFrom { generation: best.generation }]);
    show(input, found, "FoundElsewhere", &message).unwrap_or(serve)
}

/// The condition first, since the alert quotes it.
fn show(input: &Input, found: &[Found], reason: &str, message: &str) -> Option<Decision> {
    let mut draft = Draft::new(input);
    draft.status.data_unclear_since.get_or_insert(input.now);
    draft.condition(DATA_IN_ONE_PLACE, ConditionStatus::False, reason, message);
    draft.changed().or_else(|| notices::tell(input, &[alert(input, found)]))
}

/// One alert for each set of generations.
fn alert(input: &Input, found: &[Found]) -> Notice {
    let all: Vec<_> = found.iter().map(|f| f.generation.to_string()).collect();
    Notice::DataAlert(format!("{}-of-{}", input.tenant.data_generation(), all.join("-")))
}

/// Lists the namespaces, such as `tenant_a holds 3 vectors, tenant_a.2 holds 240 vectors`.
fn counts(input: &Input, found: &[Found]) -> String {
    let id = input.tenant.tenant_id();
    let name = |f: &Found| data_namespace(id, f.generation);
    let all: Vec<_> = found
        .iter()
        .map(|f| format!("{} (generation {}) holds {} vectors", name(f), f.generation, f.vectors))
        .collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}
