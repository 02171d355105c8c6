//! `verdict`: asks sidecars what they have counted, and judges all of it together.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use super::compare::ShownDifference;
use crate::cli::verdict::Job;
use crate::compare::DifferenceKind;
use crate::judge::{Decision, Docket, Verdict};
use crate::replay::{Host, Target};
use crate::report;

/// Runs `shadowtap verdict`. The exit code says what the verdict is.
///
/// # Errors
/// When no sidecar answers, or nothing can be printed.
pub fn run(job: &Job) -> anyhow::Result<ExitCode> {
    let Asked {
        verdict,
        sidecars,
        shown,
    } = super::runtime()?.block_on(async {
        let mut asked = wait(job).await?;
        if !job.json {
            asked.shown = examples(job, &asked).await;
        }
        Ok::<_, anyhow::Error>(asked)
    })?;
    let text = if job.json {
        let data = Data {
            data: &verdict,
            sidecars: &sidecars,
        };
        serde_json::to_string_pretty(&data)? + "\n"
    } else {
        report::verdict(&verdict, |endpoint, field, kind| {
            let is_it = |(of, it): &&(String, ShownDifference)| {
                of == endpoint && it.field == field && it.kind == kind
            };
            let (_, found) = shown.iter().find(is_it)?;
            Some((found.v1.clone(), found.v2.clone()))
        })
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(exit_code(verdict.verdict))
}

/// What a verdict is as an exit code.
#[must_use]
pub fn exit_code(decision: Decision) -> ExitCode {
    ExitCode::from(match decision {
        Decision::Promote => 0,
        Decision::Reject => 3,
        Decision::Continue => 4,
    })
}

/// The verdict as `GET /verdict` gives it, and who was asked.
#[derive(Serialize)]
struct Data<'a> {
    data: &'a Verdict,
    sidecars: &'a [Sidecar],
}

/// One that was asked.
#[derive(Serialize)]
struct Sidecar {
    /// The URL, with the address where the name has several.
    name: String,
    /// Requests that it has judged.
    requests: Option<u64>,
    /// Why nothing of it is in the verdict.
    error: Option<String>,
    #[serde(skip)]
    place: Option<Place>,
}

/// Where a sidecar listens.
#[derive(Clone)]
struct Place {
    url: Target,
    address: SocketAddr,
    /// Of the admin server.
    token: Option<String>,
}

/// What one of them said.
struct Answer {
    name: String,
    place: Option<Place>,
    docket: anyhow::Result<Docket>,
}

/// What came of asking all of them.
struct Asked {
    verdict: Verdict,
    sidecars: Vec<Sidecar>,
    /// By endpoint: what the latest answers have where they differ.
    shown: Vec<(String, ShownDifference)>,
}

async fn wait(job: &Job) -> anyhow::Result<Asked> {
    let begun = Instant::now();
    loop {
        let asked = ask_all(job).await;
        let left = job.wait.saturating_sub(begun.elapsed());
        match asked {
            Ok(Asked { verdict, .. })
                if verdict.verdict == Decision::Continue && !left.is_zero() =>
            {
                tracing::info!(
                    requests = verdict.requests,
                    needs = verdict.needs,
                    "continue; asking again"
                );
            }
            Err(error) if !left.is_zero() => tracing::warn!("{error:#}; asking again"),
            done => return done,
        }
        tokio::time::sleep(left.min(PAUSE)).await;
    }
}

/// Between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(5);

async fn ask_all(job: &Job) -> anyhow::Result<Asked> {
    let mut known = BTreeSet::new();
    let mut asked = tokio::task::JoinSet::new();
    let mut answers = Vec::new();
    for url in &job.urls {
        match url.resolve_once(job.timeout).await {
            Ok(addresses) => {
                let several = addresses.len() > 1;
                for address in addresses {
                    if !known.insert((address, url.base_path().to_owned())) {
                        continue;
                    }
                    let name = if several {
                        format!("{url} at {}", address.ip())
                    } else {
                        url.to_string()
                    };
                    let (url, token) = (url.clone(), job.token.clone());
                    let place = Place {
                        url,
                        address,
                        token,
                    };
                    let timeout = job.timeout;
                    asked.spawn(async move {
                        let docket = place.tally(timeout).await;
                        let place = Some(place);
                        Answer {
                            name,
                            place,
                            docket,
                        }
                    });
                }
            }
            Err(error) => answers.push(Answer {
                name: url.to_string(),
                place: None,
                docket: Err(error.into()),
            }),
        }
    }
    while let Some(answer) = asked.join_next().await {
        answers.push(answer.context("asking a sidecar")?);
    }
    answers.sort_by(|a, b| a.name.cmp(&b.name));
    judge(job, each_once(answers))
}

/// Without those that are in it under another address: a pod of two families has two, and what listens on `0.0.0.0` answers at
/// one of them.
fn each_once(mut answers: Vec<Answer>) -> Vec<Answer> {
    let answered = |answer: &Answer| answer.docket.is_ok();
    let spare: Vec<bool> = answers
        .iter()
        .map(|answer| {
            let Some(place) = &answer.place else {
                return false;
            };
            let of_name = || {
                let places = answers
                    .iter()
                    .filter_map(|it| Some((it, it.place.as_ref()?)));
                places.filter(|(_, it)| it.url == place.url)
            };
            let is_v4 = place.address.is_ipv4();
            let mut family = of_name().filter(|(_, it)| it.address.is_ipv4() == is_v4);
            let number = family.clone().count();
            let other =
                of_name().filter(|(it, other)| other.address.is_ipv4() != is_v4 && answered(it));
            !family.any(|(it, _)| answered(it)) && other.count() >= number
        })
        .collect();
    let mut spare = spare.into_iter();
    answers.retain(|_| !spare.next().unwrap_or(false));
    let mut known = BTreeSet::new();
    answers.retain(|answer| match &answer.docket {
        Ok(docket) => docket.instance.is_empty() || known.insert(docket.instance.clone()),
        Err(_) => true,
    });
    answers
}

/// Judges what was answered; whoever did not answer keeps version 2 from being promoted.
fn judge(job: &Job, answers: Vec<Answer>) -> anyhow::Result<Asked> {
    let mut all: Option<Docket> = None;
    let mut sidecars = Vec::new();
    for Answer {
        name,
        place,
        docket,
    } in answers
    {
        let requests = docket.as_ref().ok().map(|docket| docket.tally.requests());
        let added = docket.and_then(|docket| {
            match &mut all {
                None => all = Some(docket),
                Some(all) => all.merge(&docket)?,
            }
            Ok(())
        });
        sidecars.push(Sidecar {
            name,
            requests: requests.filter(|_| added.is_ok()),
            error: added.err().map(|error| format!("{error:#}")),
            place,
        });
    }
    let missing: Vec<_> = sidecars
        .iter()
        .filter_map(|it| Some(format!("{}: {}", it.name, it.error.as_ref()?)))
        .collect();
    let Some(mut all) = all else {
        bail!("no sidecar answered: {}", missing.join("; "));
    };
    all.tolerances = job.tolerances.over(all.tolerances);
    let mut verdict = all.verdict();
    if !missing.is_empty() {
        if verdict.verdict == Decision::Promote {
            verdict.verdict = Decision::Continue;
        }
        let reason = format!(
            "{} of {} sidecars are not in this, which keeps version 2 from being promoted: {}",
            missing.len(),
            sidecars.len(),
            missing.join("; ")
        );
        verdict.reasons.insert(0, reason);
    }
    Ok(Asked {
        verdict,
        sidecars,
        shown: Vec::new(),
    })
}

/// Asks for an example of each field that the report names, for as long as one answer may take.
async fn examples(job: &Job, asked: &Asked) -> Vec<(String, ShownDifference)> {
    let deadline = Instant::now() + job.timeout;
    let mut shown = Vec::new();
    for (endpoint, field, kind) in report::named(&asked.verdict) {
        for sidecar in asked.sidecars.iter().filter(|it| it.error.is_none()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(place) = sidecar.place.as_ref().filter(|_| !left.is_zero()) else {
                continue;
            };
            // An example more or less is not worth an error.
            let Ok(Some(found)) = place.example(endpoint, field, kind, left).await else {
                continue;
            };
            shown.push((endpoint.to_owned(), found));
            break;
        }
    }
    shown
}

impl Place {
    async fn tally(&self, timeout: Duration) -> anyhow::Result<Docket> {
        let body = self.get("tally", &[], timeout).await?;
        serde_json::from_slice(&body).context("its answer is no tally of this version of shadowtap: ask with the version that the sidecars run")
    }

    async fn example(
        &self,
        endpoint: &str,
        field: &str,
        kind: DifferenceKind,
        timeout: Duration,
    ) -> anyhow::Result<Option<ShownDifference>> {
        #[derive(Deserialize)]
        struct Example {
            differences: Vec<ShownDifference>,
        }

        let query = [
            ("endpoint", endpoint),
            ("field", field),
            ("kind", kind.name()),
        ];
        let body = self.get("examples", &query, timeout).await?;
        let examples: Vec<Example> =
            serde_json::from_slice(&body).context("its answer is no list of examples")?;
        let latest = examples.into_iter().next();
        Ok(latest.and_then(|example| {
            let mut differences = example.differences.into_iter();
            differences.find(|it| it.field == field && it.kind == kind)
        }))
    }

    async fn get(
        &self,
        what: &str,
        query: &[(&str, &str)],
        timeout: Duration,
    ) -> anyhow::Result<Vec<u8>> {
        // The error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout);
        if let Host::Name(name) = self.url.host() {
            client = client.resolve(name, self.address);
        }
        let url = Url::parse_with_params(&format!("{}/api/{what}", self.url), query)?;
        let mut request = client.build()?.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let mut response = request.send().await?;
        let status = response.status();
        if status == reqwest::StatusCode::UNAUTHORIZED {
            bail!("it wants the token that it was given with --admin-token-file; give it here too");
        }
        if !status.is_success() {
            bail!("it answers {status}: is that the address of --admin?");
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                bail!("its answer is larger than any tally");
            }
        }
        Ok(body)
    }
}

/// 128 endpoints with 128 fields each are less than this.
const LARGEST: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Config};
    use crate::judge::{Judge, LatencyMargin, Tolerances, Trial};

    fn docket(requests: usize, v2_failed: bool) -> Docket {
        let mut judge = Judge::new(LatencyMargin::default());
        for _ in 0..requests {
            judge.add(&Trial {
                endpoint: "GET /",
                differing: &[],
                v1_failed: false,
                v2_failed,
                latency: None,
                reference: None,
            });
        }
        Docket {
            tally: judge.tally().clone(),
            ..Docket::default()
        }
    }

    fn judged(answers: Vec<anyhow::Result<Docket>>) -> anyhow::Result<Verdict> {
        let parsed = Config::parse(["shadowtap", "verdict", "http://pods:9900"]);
        let cli::Job::Verdict(job) = parsed.expect("it is right").job else {
            panic!("another verb");
        };
        let answers = answers.into_iter().enumerate();
        let answers = answers.map(|(index, docket)| Answer {
            name: format!("pod {index}"),
            place: None,
            docket,
        });
        judge(&job, each_once(answers.collect())).map(|asked| asked.verdict)
    }

    /// How many are judged of what answers at these addresses of one name: each with its instance, or not at all.
    fn counted(addresses: &[(&str, Option<&str>)]) -> (usize, usize) {
        let answers = addresses.iter().map(|(address, instance)| Answer {
            name: (*address).to_owned(),
            place: Some(Place {
                url: "http://pods:9900".parse().expect("a URL"),
                address: address.parse().expect("an address"),
                token: None,
            }),
            docket: match instance {
                Some(instance) => Ok(Docket {
                    instance: (*instance).to_owned(),
                    ..docket(1, false)
                }),
                None => Err(anyhow::anyhow!("connection refused")),
            },
        });
        let left = each_once(answers.collect());
        let answered = left.iter().filter(|it| it.docket.is_ok()).count();
        (answered, left.len() - answered)
    }

    #[test]
    fn a_pod_with_several_addresses_is_asked_once() {
        let (a4, b4, c4) = ("10.0.0.1:9", "10.0.0.2:9", "10.0.0.3:9");
        let (a6, b6) = ("[fd00::1]:9", "[fd00::2]:9");
        // Both answer: it is the same sidecar.
        assert_eq!(counted(&[(a4, Some("a")), (a6, Some("a"))]), (1, 0));
        // Older sidecars do not say who they are.
        assert_eq!(counted(&[(a4, Some("")), (b4, Some(""))]), (2, 0));
        // One listens at one of them only, as at localhost.
        assert_eq!(
            counted(&[("127.0.0.1:9", Some("a")), ("[::1]:9", None)]),
            (1, 0)
        );
        assert_eq!(counted(&[(a4, None), (a6, Some("a"))]), (1, 0));
        let pods = [(a4, Some("a")), (b4, Some("b")), (a6, None), (b6, None)];
        assert_eq!(counted(&pods), (2, 0));
        // One of them is down: nobody knows whose the other addresses are.
        let pods = [(a4, Some("a")), (b4, None), (a6, None), (b6, None)];
        assert_eq!(counted(&pods), (1, 3));
        let pods = [
            (a4, Some("a")),
            (b4, Some("b")),
            (c4, None),
            (a6, Some("a")),
            (b6, Some("b")),
        ];
        assert_eq!(counted(&pods), (2, 1));
        assert_eq!(counted(&[(a4, Some("a")), (b4, None)]), (1, 1));
        assert_eq!(counted(&[(a4, None), (a6, None)]), (0, 2));
    }

    #[test]
    fn of_other_tolerances_the_stricter_ones_count() {
        let with = |tolerances| Docket {
            tolerances,
            ..docket(1000, false)
        };
        let strict = Tolerances {
            max_errors: 0.001,
            ..Tolerances::default()
        };
        let lax = Tolerances {
            alpha: 0.2,
            allow_uncovered: true,
            ..Tolerances::default()
        };
        for pods in [[strict, lax], [lax, strict]] {
            let verdict = judged(pods.map(|it| Ok(with(it))).into()).expect("answered");
            assert_eq!(verdict.tolerances, strict);
        }
    }

    #[test]
    fn pods_are_judged_together() {
        let one = judged(vec![Ok(docket(1000, false))]).expect("answered");
        assert_eq!(one.verdict, Decision::Continue);
        let two = judged(vec![Ok(docket(1000, false)), Ok(docket(1000, false))]);
        let two = two.expect("answered");
        assert_eq!((two.verdict, two.requests), (Decision::Promote, 2000));
    }

    #[test]
    fn a_pod_that_does_not_answer_holds_the_promotion_and_no_rejection() {
        let silent = || Err(anyhow::anyhow!("connection refused"));
        let held = judged(vec![Ok(docket(2000, false)), silent()]).expect("answered");
        assert_eq!(held.verdict, Decision::Continue);
        assert!(
            held.reasons[0].contains("pod 1: connection refused"),
            "{:?}",
            held.reasons
        );
        let rejected = judged(vec![silent(), Ok(docket(200, true))]).expect("answered");
        assert_eq!(rejected.verdict, Decision::Reject);
        let nobody = judged(vec![silent(), silent()]).expect_err("nobody answered");
        assert!(
            nobody.to_string().contains("connection refused"),
            "{nobody}"
        );
    }

    #[test]
    fn a_pod_that_counted_differently_is_not_added() {
        let mut other = docket(1000, false);
        other.tally.margin.stretch = 0.5;
        let held = judged(vec![Ok(docket(2000, false)), Ok(other)]).expect("answered");
        assert_eq!((held.verdict, held.requests), (Decision::Continue, 2000));
        assert!(
            held.reasons[0].contains("--max-slower"),
            "{:?}",
            held.reasons
        );
    }
}
