//! `toxiproxy`: toxics in proxies of a Toxiproxy server.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{FaultContext, FaultKind, Refusal, resource, toxic};
use crate::{
    api::{
        failureinjection::{JournalEntry, ObjectRef, ToxicRef, Undo},
        fault::{ToxicDirection, ToxiproxyFault},
        names::reason,
    },
    cluster::object::is_path_segment,
};

/// Whether a name fits one of the patterns.
fn fits(name: &str, patterns: &[String]) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    })
}

/// The toxic as it is sent to the server; none when the proxy is switched off.
fn toxic(fault: &ToxiproxyFault, name: &str) -> Option<Value> {
    let type_ = fault.type_.as_ref().filter(|_| !fault.disabled)?;
    let stream = match fault.direction {
        ToxicDirection::ToClient => "downstream",
        ToxicDirection::ToServer => "upstream",
    };
    Some(json!({
        "name": name,
        "type": type_,
        "stream": stream,
        "toxicity": f64::from(fault.toxicity_percent.unwrap_or(100)) / 100.0,
        "attributes": fault.attributes,
    }))
}

impl FaultKind for ToxiproxyFault {
    async fn entries(&self, ctx: &FaultContext<'_>, _targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        ctx.may_touch(&ctx.injection.namespace).await?;
        let waiting = |message: String| Refusal::NotYet { reason: reason::NO_TARGET.into(), message };
        let proxies = toxic::proxies(ctx, &self.url).await?;
        let proxies = proxies.as_object().cloned().unwrap_or_default();
        let chosen: Vec<(&String, &Value)> = proxies.iter().filter(|(name, _)| fits(name, &self.proxies)).collect();
        if chosen.is_empty() {
            let there: Vec<&str> = proxies.keys().take(8).map(String::as_str).collect();
            let wanted = self.proxies.join(", ");
            return Err(waiting(format!("{} has no proxy {wanted}; it has {}", self.url, there.join(", "))));
        }
        ctx.settings.guard_rails.check_share(chosen.len(), proxies.len())?;
        let mut entries = Vec::new();
        for (name, proxy) in chosen {
            if !is_path_segment(name) {
                let message = format!("the proxy `{name}` has a name that can't stand in a URL");
                return Err(Refusal::never(reason::INVALID_SPEC, message));
            }
            // What was off before stays off: there is nothing to switch.
            if self.disabled && proxy["enabled"] == json!(false) {
                continue;
            }
            let work = ToxicRef {
                url: self.url.clone(),
                proxy: name.clone(),
                toxic: toxic(self, &resource::made_name(ctx, 0)),
            };
            let target = ObjectRef { kind: "Proxy".into(), name: name.clone(), ..ObjectRef::default() };
            entries.push(JournalEntry { target, undo: Undo::Toxic(work), ..JournalEntry::default() });
        }
        if entries.is_empty() {
            return Err(waiting("all these proxies are switched off already".into()));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_rest() {
        let patterns = ["client".to_owned(), "peer-*".to_owned()];
        for (name, is) in [("client", true), ("client2", false), ("peer-1", true), ("peer-", true), ("peer", false)] {
            assert_eq!(fits(name, &patterns), is, "{name}");
        }
        assert!(fits("anything", &["*".to_owned()]));
    }

    #[test]
    fn a_toxic_says_what_the_fault_says() {
        let fault = ToxiproxyFault {
            type_: Some("latency".into()),
            direction: ToxicDirection::ToServer,
            toxicity_percent: Some(20),
            attributes: [("latency".to_owned(), 100)].into(),
            ..ToxiproxyFault::default()
        };
        assert_eq!(
            toxic(&fault, "soak-1"),
            Some(json!({
                "name": "soak-1", "type": "latency", "stream": "upstream", "toxicity": 0.2, "attributes": {"latency": 100},
            }))
        );
        let off = ToxiproxyFault { disabled: true, ..ToxiproxyFault::default() };
        assert_eq!(toxic(&off, "soak-1"), None);
    }
}
