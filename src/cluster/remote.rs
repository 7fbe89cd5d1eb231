//! Keeps one connection to another cluster: follows its Secret, makes clients, looks whether the server answers.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, runtime::watcher::Event};
use sha2::{Digest, Sha256};
use tokio::{sync::watch, task::AbortHandle, time::timeout};

use super::{
    Cluster, OnWatchFailure, Wake,
    client::{Account, connect},
    error::{ApiFailure, Class, classify},
    follow::{Selection, follow},
    kubeconfig,
    pods::AbortOnDrop,
    targets::{Health, KubeconfigAt, SharedLink, lock},
};
use crate::api::names::reason;

/// How often a server that answers is asked again.
const LOOK: Duration = Duration::from_secs(30);
/// How often one that does not is asked again.
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// So many answers in a row have to be missing before a server that answered counts as away.
const MISSES: u32 = 2;

/// What is known of the Secret. It is never shown, so it has no `Debug`.
#[derive(Clone, Default)]
enum SecretSeen {
    #[default]
    Unknown,
    Failed(ApiFailure),
    Missing,
    NoKey,
    Present {
        digest: [u8; 32],
        text: Vec<u8>,
    },
}

pub(super) struct Keeper {
    pub(super) own: Cluster,
    pub(super) account: Account,
    pub(super) at: KubeconfigAt,
    pub(super) wake: Wake,
    pub(super) failed: OnWatchFailure,
    pub(super) local: bool,
    pub(super) link: SharedLink,
}

impl Keeper {
    /// Never ends by itself; it is aborted with the connection.
    pub(super) async fn keep(self) {
        self.tell(away(reason::CONNECTING, "it is being connected to"));
        let (sender, mut secret) = watch::channel(SecretSeen::Unknown);
        let Ok(tenant) = self.own.tenants.client(&self.account) else {
            return self.tell(away("Invalid", "the run's service account has no valid name"));
        };
        let _follower = AbortOnDrop(self.follow_secret(tenant, sender));
        let mut connected: Option<([u8; 32], Client)> = None;
        let mut misses = 0;
        loop {
            let now = secret.borrow_and_update().clone();
            connected = match self.connect(now, connected.take()).await {
                Ok(client) => client,
                Err(health) => {
                    lock(&self.link).cluster = None;
                    self.tell(health);
                    None
                }
            };
            let pause = match &connected {
                None => Duration::MAX,
                Some((_, client)) => {
                    let health = self.ask(client).await;
                    misses = if health.reachable { 0 } else { misses + 1 };
                    let reachable = health.reachable;
                    if reachable || misses >= MISSES || !lock(&self.link).health.reachable {
                        self.tell(health);
                    }
                    if reachable { LOOK } else { LOOK_AGAIN }
                }
            };
            // The sender lives as long as the follower, which lives as long as this.
            let _ = timeout(pause, secret.changed()).await;
        }
    }

    /// Follows the one Secret: whoever may only read that one by name may also watch it so.
    fn follow_secret(&self, tenant: Client, sender: watch::Sender<SecretSeen>) -> AbortHandle {
        let secrets: Api<Secret> = Api::namespaced(tenant, &self.account.namespace);
        let selection = Selection { fields: Some(format!("metadata.name={}", self.at.secret)), labels: None };
        let (key, failed) = (self.at.key.clone(), self.failed.clone());
        let mut listed = false;
        tokio::spawn(async move {
            follow(secrets, selection, |event| match event {
                Ok(Event::Init) => listed = false,
                Ok(Event::InitApply(secret)) => {
                    listed = true;
                    let _ = sender.send(read(secret, &key));
                }
                Ok(Event::Apply(secret)) => {
                    let _ = sender.send(read(secret, &key));
                }
                Ok(Event::InitDone) if listed => {}
                Ok(Event::InitDone | Event::Delete(_)) => {
                    let _ = sender.send(SecretSeen::Missing);
                }
                Err(failure) => {
                    failed("secret", &failure);
                    // What was read stays good while the server stumbles.
                    let known = matches!(*sender.borrow(), SecretSeen::Present { .. });
                    if !known || failure.class == Class::Forbidden {
                        let _ = sender.send(SecretSeen::Failed(failure));
                    }
                }
            })
            .await;
        })
        .abort_handle()
    }

    /// Makes a cluster of the Secret's kubeconfig, unless the one that is there was made of the same.
    async fn connect(
        &self,
        secret: SecretSeen,
        connected: Option<([u8; 32], Client)>,
    ) -> Result<Option<([u8; 32], Client)>, Health> {
        let Self { account, at: KubeconfigAt { secret: name, key }, .. } = self;
        let place = format!("{}/{name}", account.namespace);
        let (digest, text) = match secret {
            SecretSeen::Unknown => return Ok(None),
            SecretSeen::Failed(failure) => return Err(away(failure.class.reason(), &failure.message)),
            SecretSeen::Missing => return Err(away("SecretNotFound", &format!("Secret {place} is not there"))),
            SecretSeen::NoKey => {
                return Err(away("SecretInvalid", &format!("Secret {place} has no key {key}")));
            }
            SecretSeen::Present { digest, text } => (digest, text),
        };
        if let Some(same) = connected.filter(|(old, _)| *old == digest) {
            return Ok(Some(same));
        }
        let bad = |problem: &str| away("SecretInvalid", &format!("the kubeconfig in Secret {place}: {problem}"));
        let config = kubeconfig::read(&text, self.local).await.map_err(|error| bad(&error.to_string()))?;
        // The client's error may hold what it was made of.
        let client = connect(config).map_err(|_| bad("its certificates or keys can't be used"))?;
        let cluster = Cluster::remote(&client, &account.namespace, &self.wake, &self.failed);
        let mut link = lock(&self.link);
        if link.wants_pods {
            cluster.pods.ensure();
        }
        link.cluster = Some(cluster);
        Ok(Some((digest, client)))
    }

    /// Asks the server for its version, which every account may read.
    async fn ask(&self, client: &Client) -> Health {
        let began = Instant::now();
        match timeout(ANSWER, client.apiserver_version()).await {
            Ok(Ok(info)) => Health {
                reachable: true,
                reason: "Reachable".into(),
                message: String::new(),
                version: Some(info.git_version),
                latency_millis: i64::try_from(began.elapsed().as_millis()).ok(),
            },
            Ok(Err(kube::Error::Api(status))) if status.code == 401 => away(
                "Unauthorized",
                &format!("it does not accept the credentials in Secret {}/{}", self.account.namespace, self.at.secret),
            ),
            // That it answers is all that is asked: a server may keep its version to itself.
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                Health { reachable: true, reason: "Reachable".into(), ..Health::default() }
            }
            Ok(Err(error)) => away("Unreachable", &classify(&error).message),
            Err(_) => away("Unreachable", &format!("it did not answer within {} s", ANSWER.as_secs())),
        }
    }

    /// Notes what is known, and wakes the runs if that is news. A latency alone is none.
    fn tell(&self, health: Health) {
        let mut link = lock(&self.link);
        let news = (link.health.reachable, &link.health.reason, &link.health.message)
            != (health.reachable, &health.reason, &health.message);
        let version = health.version.clone().or(link.health.version.take());
        link.health = Health { version, ..health };
        let users = link.users();
        drop(link);
        if news {
            for run in &users {
                (self.wake)(run);
            }
        }
    }
}

fn read(secret: Secret, key: &str) -> SecretSeen {
    match secret.data.and_then(|mut data| data.remove(key)) {
        Some(text) => SecretSeen::Present { digest: Sha256::digest(&text.0).into(), text: text.0 },
        None => SecretSeen::NoKey,
    }
}

fn away(reason: &str, message: &str) -> Health {
    Health { reachable: false, reason: reason.into(), message: message.into(), version: None, latency_millis: None }
}
