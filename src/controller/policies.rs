//! Looks at the admission policies as they are stored, and remembers in the ConfigMap what was seen in force.

use crate::admission::enforcement::{Breach, Enforcement, Seal, Sighting, Verdict, inspect};
use crate::admission::validating;
use crate::agent::Admission;
use crate::capability::{Unusable, entry_of};
use crate::crd::{Agent, Capability, JitRequest, TrustedIssuer};
use crate::issuer::RegisteredIssuer;
use crate::jit::Request;
use crate::metrics::Metrics;
use crate::snapshot::watches::follow;
use crate::snapshot::wire::{Guarded, Meta};
use crate::time::Clock;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, Notify};

/// Key in the ConfigMap.
const RECORD: &str = "admission-policies-in-force";
/// How often the policies are looked at, whether or not a watch says that they changed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How soon again while they are not in force.
const LOOK_SOON: Duration = Duration::from_millis(500);

/// The policies over time.
pub struct Policies {
    client: kube::Client,
    config_maps: Api<ConfigMap>,
    config_map: String,
    started: Instant,
    state: Mutex<Looked>,
    /// Whether, by the last look, what is written now is written under them.
    in_force: AtomicBool,
    clock: Clock,
    /// UIDs of objects of which something was written, or may have been, while the policies were not in force, until that is in their
    /// status.
    tainted: StdMutex<HashSet<String>>,
    metrics: Arc<Metrics>,
    changed: Notify,
}

/// What the last look found, and when it began.
#[derive(Debug, Default)]
struct Looked {
    found: Option<Enforcement>,
    begun: Option<Instant>,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Policies {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(client: kube::Client, namespace: &str, config_map: String, metrics: Arc<Metrics>, clock: Clock) -> Arc<Self> {
        let config_maps = Api::namespaced(client.clone(), namespace);
        let (started, state, changed) = (Instant::now(), Mutex::default(), Notify::new());
        Arc::new(Self {
            client,
            config_maps,
            config_map,
            started,
            state,
            in_force: AtomicBool::new(false),
            clock,
            tainted: StdMutex::default(),
            metrics,
            changed,
        })
    }

    /// Whether what is written now is written under them, by the last look: a few seconds ago at most, and less if a watch said that
    /// they changed.
    #[must_use]
    pub fn in_force(&self) -> bool {
        self.in_force.load(Ordering::Relaxed)
    }

    /// Looks again whenever a policy or binding changes and every few seconds, for ever.
    pub async fn watch(self: Arc<Self>) {
        let policies = Api::<Meta<ValidatingAdmissionPolicy>>::all(self.client.clone());
        let bindings = Api::<Meta<ValidatingAdmissionPolicyBinding>>::all(self.client.clone());
        let looking = async {
            loop {
                let pause = match self.look().await {
                    Ok(Enforcement::InForce(_)) => LOOK_EVERY,
                    Ok(_) => LOOK_SOON,
                    Err(error) => {
                        tracing::warn!(error = %crate::error_chain(&error), "the admission policies could not be looked at");
                        LOOK_SOON
                    }
                };
                // Either way it is time to look again.
                _ = tokio::time::timeout(pause, self.changed.notified()).await;
            }
        };
        tokio::join!(
            follow(policies, "validatingadmissionpolicies", |_| self.changed.notify_one()),
            follow(bindings, "validatingadmissionpolicybindings", |_| self.changed.notify_one()),
            looking
        );
    }

    /// Judges something new in the object `uid` that was created at `created`, in seconds since the epoch: looks at the policies now, after
    /// it was written, and compares with what was seen before. Of many that ask at once one looks for all. What was once unproven stays
    /// so until [`Self::told`]: a write in between must not wash it off.
    ///
    /// # Errors
    /// If the API server does not answer: nothing is judged then.
    pub async fn judge(&self, uid: &str, created: i64) -> kube::Result<Verdict> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        let found = match &*state {
            Looked { found: Some(found), begun: Some(begun) } if *begun > asked => found.clone(),
            _ => self.look_into(&mut state).await?,
        };
        let verdict = found.judge(created);
        let mut tainted = self.tainted.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(match verdict {
            Verdict::Proven if tainted.contains(uid) => {
                Verdict::Unproven("it was written while the admission policies were not in force".to_owned())
            }
            Verdict::Proven => Verdict::Proven,
            unproven @ Verdict::Unproven(_) => {
                tainted.insert(uid.to_owned());
                unproven
            }
        })
    }

    /// What was found about the object is in its status.
    pub fn told(&self, uid: &str) {
        self.tainted.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Before the policies count as in force again: whatever is stored and was not judged yet may have been written meanwhile, however
    /// late its controller gets to see it.
    async fn taint_the_unjudged(&self, before: &Enforcement) -> kube::Result<()> {
        let mut found = unjudged::<Agent>(&self.client, |agent| {
            let conditions = agent.status.as_ref().map_or(&[] as &[_], |status| &status.conditions);
            Admission::of(conditions, agent.metadata.generation.unwrap_or_default()) == Admission::Pending
                || agent.status.as_ref().is_some_and(|status| status.revoke.is_some())
        })
        .await?;
        found.extend(
            unjudged::<Capability>(&self.client, |capability| matches!(entry_of(capability), Some((_, Err(Unusable::Pending)))))
                .await?,
        );
        let pending = |issuer: &TrustedIssuer| {
            RegisteredIssuer::parse(issuer).admission == Admission::Pending
                || issuer.status.as_ref().is_some_and(|status| status.revoke.is_some())
        };
        found.extend(unjudged::<TrustedIssuer>(&self.client, pending).await?);
        found.extend(
            unjudged::<JitRequest>(&self.client, |request| Request::parse(request.clone()).is_some_and(|r| r.needs_proof()))
                .await?,
        );
        let unproven = found.into_iter().filter(|(_, created)| matches!(before.judge(*created), Verdict::Unproven(_)));
        self.tainted.lock().unwrap_or_else(PoisonError::into_inner).extend(unproven.map(|(uid, _)| uid));
        Ok(())
    }

    /// Looks at the stored objects and moves on to the next state.
    async fn look(&self) -> kube::Result<Enforcement> {
        self.look_into(&mut *self.state.lock().await).await
    }

    /// The state is held during the look, so that two looks cannot overtake each other.
    async fn look_into(&self, state: &mut Looked) -> kube::Result<Enforcement> {
        let before = match state.found.take() {
            Some(before) => before,
            None => Enforcement::Unseen(self.recorded().await?),
        };
        let begun = Instant::now();
        let sighting = match self.sight().await {
            Ok(sighting) => sighting,
            Err(error) => {
                state.found = Some(before);
                return Err(error);
            }
        };
        let after = before.clone().after(sighting, self.started.elapsed());
        if let Enforcement::InForce(sighting) = &after {
            let same = matches!(&before, Enforcement::InForce(b) if b.seals() == sighting.seals());
            let settle = async {
                if matches!(before, Enforcement::Settling(..)) {
                    self.taint_the_unjudged(&before).await?;
                }
                if same { Ok(()) } else { self.record(sighting.seals()).await }
            };
            if let Err(error) = settle.await {
                // The next look tries again: the state stays what it was.
                state.found = Some(before);
                return Err(error);
            }
        }
        let holds = after.judge(self.clock.now().as_second()) == Verdict::Proven;
        self.in_force.store(holds, Ordering::Relaxed);
        self.tell(&before, &after);
        *state = Looked { found: Some(after.clone()), begun: Some(begun) };
        Ok(after)
    }

    async fn sight(&self) -> kube::Result<Result<Sighting, Breach>> {
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        let look = validating().iter().map(|expected| {
            let name = expected.policy.metadata.name.as_deref().unwrap_or_default();
            let (policies, bindings) = (&policies, &bindings);
            async move { Ok::<_, kube::Error>((expected, policies.get_opt(name).await?, bindings.get_opt(name).await?)) }
        });
        let found = futures::future::try_join_all(look).await?;
        Ok(inspect(found.iter().map(|(expected, policy, binding)| (*expected, policy.as_ref(), binding.as_ref()))))
    }

    fn tell(&self, before: &Enforcement, after: &Enforcement) {
        self.metrics.policies_in_force(after.in_force());
        match (before, after) {
            (Enforcement::Broken(b), Enforcement::Broken(a)) if a == b => {}
            (_, Enforcement::Broken(breach)) => {
                tracing::error!(%breach, "the admission policies are not in force: Agents written now get no token; restore them with helm upgrade");
            }
            (Enforcement::InForce(_), Enforcement::InForce(_)) => {}
            (_, Enforcement::InForce(_)) => tracing::info!("the admission policies are in force"),
            _ => {}
        }
    }

    /// What an earlier process has seen in force.
    async fn recorded(&self) -> kube::Result<Option<Vec<Seal>>> {
        let config_map = self.config_maps.get(&self.config_map).await?;
        let text = config_map.data.unwrap_or_default().remove(RECORD);
        // Unreadable is unknown: then nothing is taken over.
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    async fn record(&self, seals: &[Seal]) -> kube::Result<()> {
        let text = serde_json::to_string(seals).map_err(kube::Error::SerdeError)?;
        set(&self.config_maps, &self.config_map, RECORD, &text).await
    }
}

/// UID and creation time, in seconds since the epoch, of all stored objects of a kind that are `pending`.
async fn unjudged<K>(client: &kube::Client, pending: impl Fn(&K) -> bool) -> kube::Result<Vec<(String, i64)>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    Guarded<K>: Clone,
{
    let list = Api::<Guarded<K>>::all(client.clone()).list(&ListParams::default()).await?;
    let found = list.items.into_iter().filter(|guarded| guarded.object.as_ref().is_ok_and(&pending));
    Ok(found.map(|g| (g.uid().unwrap_or_default(), g.creation_timestamp().map_or(i64::MAX, |t| t.0.as_second()))).collect())
}

/// Writes one key of a ConfigMap, unless it is there already.
///
/// # Errors
/// If the ConfigMap cannot be read or written; a conflict is tried again a few times.
pub(super) async fn set(api: &Api<ConfigMap>, name: &str, key: &str, value: &str) -> kube::Result<()> {
    let mut attempts = 5;
    loop {
        let mut config_map = api.get(name).await?;
        let data = config_map.data.get_or_insert_default();
        if data.get(key).is_some_and(|stored| stored == value) {
            return Ok(());
        }
        data.insert(key.to_owned(), value.to_owned());
        let written = api.replace(name, &super::writing(), &config_map).await;
        match written {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempts > 0 => attempts -= 1,
            other => return other.map(drop),
        }
    }
}
