//! A toxic, or a proxy that is switched off ([`Undo::Toxic`](crate::api::failureinjection::Undo::Toxic)).
//!
//! A toxic has a name of the injection's own, so it is known again whoever made others meanwhile.

use std::time::Duration;

use serde_json::{Value, json};

use super::{FaultContext, Refusal, injected};
use crate::{
    api::{failureinjection::ToxicRef, names::reason},
    engine::injection::EntrySeen,
    request::{self, Request},
};

/// Longest time that an answer may take.
const LIMIT: Duration = Duration::from_secs(3);

/// An answer: its status and its JSON.
struct Answer {
    status: u64,
    json: Value,
}

impl Answer {
    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// What the server complains about.
    fn complaint(&self) -> String {
        let text = self.json["error"].as_str().or(self.json["title"].as_str()).unwrap_or("no reason given");
        format!("Toxiproxy answered {}: {text}", self.status)
    }
}

async fn ask(
    ctx: &FaultContext<'_>,
    url: &str,
    method: &str,
    path: &str,
    body: Option<&Value>,
) -> Result<Answer, (bool, String)> {
    let url = format!("{}{path}", url.trim_end_matches('/'));
    let headers = [("content-type", "application/json")];
    let request = Request::new(&url, Some(method), headers, body.map(Value::to_string), None);
    let request = request.map_err(|error| (false, error))?;
    match tokio::time::timeout(LIMIT, request::send(&request, ctx.settings.local_addresses)).await {
        Ok(Ok(answer)) => {
            Ok(Answer { status: answer["status"].as_u64().unwrap_or_default(), json: answer["json"].clone() })
        }
        Ok(Err(failure)) => Err((failure.transient, failure.to_string())),
        Err(_) => Err((true, format!("Toxiproxy did not answer within {} s", LIMIT.as_secs()))),
    }
}

/// All proxies by name, as the server tells them.
pub(super) async fn proxies(ctx: &FaultContext<'_>, url: &str) -> Result<Value, Refusal> {
    match ask(ctx, url, "GET", "/proxies", None).await {
        Ok(answer) if answer.is_good() && answer.json.is_object() => Ok(answer.json),
        Ok(answer) => Err(Refusal::NotYet {
            reason: reason::INFRA_ERROR.into(),
            message: format!("{url} does not answer as Toxiproxy does: status {}", answer.status),
        }),
        Err((true, message)) => Err(Refusal::NotYet { reason: reason::INFRA_ERROR.into(), message }),
        Err((false, message)) => Err(Refusal::never(reason::NOT_ALLOWED, message)),
    }
}

/// What there is of an effect.
enum Seen {
    There,
    Absent,
    NoProxy,
}

/// The name of a toxic.
fn name_of(toxic: &Value) -> &str {
    toxic["name"].as_str().unwrap_or_default()
}

/// Whether the effect is there, in the server's account of a proxy.
fn is_there(proxy: &Value, toxic: Option<&Value>) -> bool {
    match toxic {
        None => proxy["enabled"] == json!(false),
        Some(toxic) => proxy["toxics"].as_array().into_iter().flatten().any(|it| name_of(it) == name_of(toxic)),
    }
}

async fn look(ctx: &FaultContext<'_>, work: &ToxicRef) -> Result<Seen, String> {
    let answer = ask(ctx, &work.url, "GET", &format!("/proxies/{}", work.proxy), None).await;
    match answer.map_err(|(_, message)| message)? {
        answer if answer.status == 404 => Ok(Seen::NoProxy),
        answer if !answer.is_good() => Err(answer.complaint()),
        answer if is_there(&answer.json, work.toxic.as_ref()) => Ok(Seen::There),
        _ => Ok(Seen::Absent),
    }
}

pub(super) async fn inject(ctx: &FaultContext<'_>, work: &ToxicRef) -> EntrySeen {
    let failing = |message: String| EntrySeen::Failing { message };
    match look(ctx, work).await {
        Ok(Seen::There) => return injected(String::new()),
        Ok(Seen::NoProxy) => {
            let message = format!("there is no proxy {} any more", work.proxy);
            return EntrySeen::NeverBegan { reason: reason::NO_TARGET.into(), message };
        }
        Ok(Seen::Absent) if ctx.is_stale() => return failing("the decision is too old to act on".into()),
        Ok(Seen::Absent) => {}
        Err(message) => return failing(message),
    }
    let proxy = format!("/proxies/{}", work.proxy);
    let answer = match &work.toxic {
        Some(toxic) => ask(ctx, &work.url, "POST", &format!("{proxy}/toxics"), Some(toxic)).await,
        None => ask(ctx, &work.url, "POST", &proxy, Some(&json!({"enabled": false}))).await,
    };
    match answer {
        Ok(answer) if answer.status == 400 => {
            EntrySeen::NeverBegan { reason: reason::INVALID_SPEC.into(), message: answer.complaint() }
        }
        Ok(answer) if !answer.is_good() => failing(answer.complaint()),
        Err((_, message)) => failing(message),
        Ok(_) => match look(ctx, work).await {
            Ok(Seen::There) => injected(String::new()),
            Ok(_) => failing("Toxiproxy took it, and it is not there".into()),
            Err(message) => failing(message),
        },
    }
}

pub(super) async fn revert(ctx: &FaultContext<'_>, work: &ToxicRef) -> EntrySeen {
    let failing = |message: String| EntrySeen::Failing { message };
    let gone = || EntrySeen::Gone { message: format!("there is no proxy {} any more", work.proxy) };
    match look(ctx, work).await {
        Ok(Seen::Absent) if ctx.is_open() => {
            return failing("a call that would make it may still be under way".into());
        }
        Ok(Seen::Absent) => return EntrySeen::Reverted { message: String::new() },
        Ok(Seen::NoProxy) => return gone(),
        Ok(Seen::There) => {}
        Err(message) => return failing(message),
    }
    let proxy = format!("/proxies/{}", work.proxy);
    let answer = match &work.toxic {
        Some(toxic) => ask(ctx, &work.url, "DELETE", &format!("{proxy}/toxics/{}", name_of(toxic)), None).await,
        None => ask(ctx, &work.url, "POST", &proxy, Some(&json!({"enabled": true}))).await,
    };
    match answer {
        Err((_, message)) => return failing(message),
        Ok(answer) if !answer.is_good() && answer.status != 404 => return failing(answer.complaint()),
        Ok(_) => {}
    }
    match look(ctx, work).await {
        Ok(Seen::Absent) => EntrySeen::Reverted { message: String::new() },
        Ok(Seen::NoProxy) => gone(),
        Ok(Seen::There) => failing("Toxiproxy took its removal, and it is still there".into()),
        Err(message) => failing(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toxic_is_known_by_its_name_and_a_proxy_by_its_switch() {
        let proxy = json!({"name": "db", "enabled": true, "toxics": [{"name": "theirs"}, {"name": "soak-1"}]});
        assert!(is_there(&proxy, Some(&json!({"name": "soak-1"}))));
        assert!(!is_there(&proxy, Some(&json!({"name": "soak-2"}))));
        assert!(!is_there(&proxy, None));
        assert!(is_there(&json!({"enabled": false}), None));
    }
}
