//! Answers for idempotency keys: begin, finish, erase.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Shared;
use super::answers::ServiceProblem;
use super::extract::{Body, Name, Names};
use crate::ledger::answers::{Key, LARGEST};
use crate::ledger::wire::{
    AnswerState, BeginAnswer, ErasedAnswers, FinishAnswer, FinishedAnswer, KeptAnswer, PENDING, name_of,
};

fn key(Names(tenant, key): Names, request: String, attempt: String) -> Result<Key, ServiceProblem> {
    let named = |what: &str, name| name_of(name).map_err(|why| ServiceProblem::Malformed(format!("{what}: {why}")));
    Ok(Key { tenant, key, request: named("request_hash", request)?, attempt: named("attempt", attempt)? })
}

/// `PUT /v1/answers/{tenant}/{key}`
pub async fn begin(
    State(shared): State<Arc<Shared>>,
    names: Names,
    Body(asked): Body<BeginAnswer>,
) -> Result<Json<AnswerState>, ServiceProblem> {
    let BeginAnswer { request_hash, attempt, expires_after } = asked;
    if !PENDING.contains(&expires_after) {
        let (least, most) = (PENDING.start(), PENDING.end());
        return Err(ServiceProblem::Malformed(format!(
            "expires_after is {expires_after}: use {least} to {most} seconds"
        )));
    }
    let key = key(names, request_hash, attempt)?;
    let now = shared.clock.read().now;
    Ok(Json(shared.store.answers().begin(key, now.plus(expires_after.into()), now).await?))
}

/// `POST /v1/answers/{tenant}/{key}/finish`
pub async fn finish(
    State(shared): State<Arc<Shared>>,
    names: Names,
    Body(FinishAnswer { request_hash, attempt, answer }): Body<FinishAnswer>,
) -> Result<Json<FinishedAnswer>, ServiceProblem> {
    let key = key(names, request_hash, attempt)?;
    let answer = answer.map(fits).transpose()?.flatten();
    let now = shared.clock.read().now;
    let kept = shared.store.answers().finish(key, answer, shared.answer_bytes, now).await?;
    Ok(Json(FinishedAnswer { kept }))
}

/// An answer, unless it is too long to be kept.
fn fits(answer: KeptAnswer) -> Result<Option<KeptAnswer>, ServiceProblem> {
    let body =
        STANDARD.decode(&answer.body).map_err(|why| ServiceProblem::Malformed(format!("body: no Base64: {why}")))?;
    let headers: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    Ok((body.len() <= LARGEST && headers <= LARGEST / 4).then_some(answer))
}

/// `DELETE /v1/answers/{tenant}`
pub async fn erase(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
) -> Result<Json<ErasedAnswers>, ServiceProblem> {
    Ok(Json(ErasedAnswers { erased: shared.store.answers().erase(&tenant).await? }))
}
