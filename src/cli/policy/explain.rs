//! `postern policy explain`: the verdict on one made-up request, and every rule with the reason why it matched or not. Asks the very
//! rules that the live path asks (invariant 6); it never decides anything itself.

use std::{io::Write, net::IpAddr, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use http::{HeaderName, HeaderValue};
use serde_json::json;

use super::terminal::{Paint, Terminal};

use crate::{
    app, config,
    core::{
        client_ip::ClientAddress,
        identity::Factor,
        policy::{Explanation, Imagined, ImaginedCaller, RuleSet},
        target::EncodedSlashes,
        time::Timestamp,
        verdict::Rejection,
    },
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the policy files
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// The address that is asked for, with scheme and host
    #[arg(long)]
    url: String,
    /// The request's method
    #[arg(long, default_value = "GET")]
    method: String,
    /// Who is signed in; without it nobody is
    #[arg(long)]
    user: Option<String>,
    /// The groups of the user
    #[arg(long, value_delimiter = ',', requires = "user")]
    groups: Vec<String>,
    /// The OAuth client that asks in its own name
    #[arg(long, conflicts_with = "user")]
    client: Option<String>,
    /// Factors of the sign-in: `one` where --user or --client is given, else `none`
    #[arg(long)]
    factor: Option<Factors>,
    /// How long ago the user signed in
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = config::duration)]
    auth_age: Duration,
    /// The client's address; without it the address counts as unknown
    #[arg(long)]
    ip: Option<IpAddr>,
    /// What holds for the request's route in the configuration
    #[arg(long, default_value = "reject")]
    encoded_slashes: Slashes,
    /// When it is asked (default: now), such as 2027-06-30T18:00:00+02:00
    #[arg(long, value_name = "TIME", value_parser = config::moment)]
    time: Option<Timestamp>,
    /// Name of the route, as the edge has it
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// A header of the request, for `when`
    #[arg(long, value_name = "K=V", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// An attribute of the user or a claim of the token, for `when`; K:=V takes JSON, such as seats:=5
    #[arg(long, value_name = "K=V", value_parser = claim)]
    claim: Vec<(String, serde_json::Value)>,
    /// On a terminal, show the rules for other hosts too
    #[arg(long)]
    all: bool,
    /// How to print it
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Factors {
    None,
    One,
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Slashes {
    Reject,
    Strictest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
    let value = HeaderValue::try_from(value).map_err(|_| format!("{value:?} cannot stand in a header"))?;
    Ok((name, value))
}

fn claim(text: &str) -> Result<(String, serde_json::Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE, or NAME:=JSON")?;
    let (name, value) = match name.strip_suffix(':') {
        Some(name) => {
            let value = serde_json::from_str(value).map_err(|error| format!("what follows := is no JSON: {error}"))?;
            (name, value)
        }
        None => (name, serde_json::Value::from(value)),
    };
    if name.is_empty() { Err("a claim needs a name".to_owned()) } else { Ok((name.to_owned(), value)) }
}

pub(super) fn run(args: &Args, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<ExitCode> {
    let signed_in = args.user.is_some() || args.client.is_some();
    let factor = match args.factor {
        None if signed_in => Some(Factor::One),
        None | Some(Factors::None) => None,
        Some(_) if !signed_in => {
            writeln!(notes, "error: --factor one and two need --user or --client: say who signed in")?;
            return Ok(ExitCode::from(2));
        }
        Some(Factors::One) => Some(Factor::One),
        Some(Factors::Two) => Some(Factor::Two),
    };
    let loaded = config::load_policies(&args.policies);
    let Some(rules) = super::sound(loaded, notes)? else { return Ok(ExitCode::FAILURE) };
    if !args.claim.is_empty() && !signed_in {
        writeln!(
            notes,
            "note: nobody is signed in who could have a claim: --claim changes nothing without --user or --client"
        )?;
    }
    let answer = answer(args, factor, &rules)?;
    match args.format {
        Format::Json => write_json(out, &answer)?,
        Format::Text => write!(out, "{}", text(&answer, Terminal::of_stdout(args.all)))?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn answer(args: &Args, factor: Option<Factor>, rules: &RuleSet) -> anyhow::Result<Result<Explanation, Rejection>> {
    let groups = args.groups.iter().filter(|group| !group.is_empty()).cloned().collect();
    let now = args.time.unwrap_or_else(app::now);
    let caller = factor.map(|factor| {
        Imagined::caller(ImaginedCaller {
            user: args.user.clone(),
            groups,
            factor,
            signed_in_at: now.before(args.auth_age),
            attributes: args.claim.iter().cloned().collect(),
        })
    });
    let caller = caller.transpose();
    let request = Imagined {
        url: args.url.clone(),
        method: args.method.clone(),
        caller: caller.context("--user or --groups cannot be used")?,
        client: args.client.clone(),
        now,
        headers: args.header.iter().cloned().collect(),
        route: args.route.clone(),
        address: args.ip.map_or(ClientAddress::Unknown, |address| ClientAddress::Known(address.to_canonical())),
        encoded_slashes: match args.encoded_slashes {
            Slashes::Reject => EncodedSlashes::Reject,
            Slashes::Strictest => EncodedSlashes::Strictest,
        },
    };
    Ok(rules.imagine(&request))
}

fn write_json(out: &mut impl Write, answer: &Result<Explanation, Rejection>) -> anyhow::Result<()> {
    let json = match answer {
        Ok(explanation) => serde_json::to_value(explanation)?,
        Err(rejection) => json!({
            "verdict": "reject", "policy": null, "rule": null, "trace": [], "limits": [], "because": rejection.to_string(),
        }),
    };
    writeln!(out, "{json:#}")?;
    Ok(())
}

fn text(answer: &Result<Explanation, Rejection>, terminal: Option<Terminal>) -> String {
    match (answer, terminal) {
        (Ok(explanation), None) => explanation.to_string(),
        (Ok(explanation), Some(terminal)) => terminal.explained(explanation),
        (Err(rejection), terminal) => {
            let verdict = if terminal.is_some() { Paint::BoldRed } else { Paint::Plain };
            format!("{}   {rejection}; no rule is asked\n", verdict.on("reject"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::core::policy::{Level, LimitDraft, MatchDraft, Mode, PolicyDraft, RuleDraft};

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn parsed(flags: &[&str]) -> Result<Args, clap::Error> {
        let line = ["explain", "--policies", "policies"].iter().chain(flags);
        Program::try_parse_from(line).map(|program| program.args)
    }

    fn printed(flags: &[&str], factor: Option<Factor>) -> (String, serde_json::Value) {
        let rule = RuleDraft {
            name: Some("dev".to_owned()),
            domain: vec!["a.test".to_owned()],
            policy: Some(Level::OneFactor),
            subject: vec![vec!["group:dev".to_owned()]],
            ..RuleDraft::default()
        };
        let (rules, _) = RuleSet::compile(&PolicyDraft { rules: vec![rule], ..PolicyDraft::default() }).unwrap();
        let answer = answer(&parsed(flags).unwrap(), factor, &rules).unwrap();
        let mut json = Vec::new();
        write_json(&mut json, &answer).unwrap();
        (text(&answer, None), serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn text_and_json_say_the_same() {
        let url = ["--url", "https://a.test/x"];
        let (text, json) = printed(&url, None);
        assert!(text.starts_with("sign_in   rule \"dev\", policy one_factor\n"), "{text}");
        assert_eq!(
            (&json["verdict"], &json["rule"], &json["trace"][0]["matched"]),
            (&json!("sign_in"), &json!("dev"), &json!(true))
        );
        let flags = [&url[..], &["--user", "bob", "--groups", "ops,dev"]].concat();
        assert_eq!(printed(&flags, Some(Factor::One)).1["verdict"], json!("forward"));
    }

    fn limited(flags: &[&str], factor: Option<Factor>) -> (String, serde_json::Value) {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rule = RuleDraft { domain: texts(&["a.test"]), policy: Some(Level::OneFactor), ..RuleDraft::default() };
        let limit = |name: &str, key: &str| LimitDraft {
            name: name.to_owned(),
            key: key.to_owned(),
            rates: texts(&["50/minute", "500/hour"]),
            matches: MatchDraft { domain: texts(&["a.test"]), ..MatchDraft::default() },
            ..LimitDraft::default()
        };
        let health = MatchDraft { path: texts(&["/health"]), ..MatchDraft::default() };
        let limits = vec![
            LimitDraft {
                bypass: vec![health],
                plans: vec![("pro".to_owned(), texts(&["9/second burst 99"]))],
                ..limit("people", "user")
            },
            LimitDraft { mode: Mode::Report, ..limit("flood", "ip") },
            LimitDraft {
                matches: MatchDraft { domain: texts(&["b.test"]), ..MatchDraft::default() },
                ..limit("b", "ip")
            },
            limit("orgs", "string(user.claims.org)"),
        ];
        let draft = PolicyDraft { rules: vec![rule], limits, ..PolicyDraft::default() };
        let (rules, _) = RuleSet::compile(&draft).unwrap();
        let answer = answer(&parsed(flags).unwrap(), factor, &rules).unwrap();
        let mut json = Vec::new();
        write_json(&mut json, &answer).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let text = text(&answer, None);
        (text.split_once("\nlimits:\n").map_or(String::new(), |(_, limits)| limits.to_owned()), json["limits"].clone())
    }

    #[test]
    fn the_limits_of_a_request_are_told() {
        let (one, bob) = (Some(Factor::One), ["--user", "bob", "--claim", "plan=pro"]);
        let of = |url: &'static str, flags: &[&'static str]| [&["--url", url][..], flags].concat();
        let (text, json) = limited(&of("https://a.test/x", &bob), one);
        assert_eq!(
            text,
            " ~ flood   50/minute, 500/hour by ip; by address, before anybody is asked for; it only reports\n\
             \x20+ people  9/second burst 99 by user (plan pro); the rules let it pass\n\
             \x20- orgs    50/minute, 500/hour by string(user.claims.org); its key cannot be worked out: the answer is 403\n"
        );
        let people = json!({ "limit": "people", "key": "user", "rates": ["9/second burst 99"], "plan": "pro", "mode": "enforce",
            "counted": true, "because": "the rules let it pass" });
        assert_eq!((json.as_array().unwrap().len(), &json[1]), (3, &people));
        let (text, json) = limited(&of("https://a.test/health", &bob), one);
        assert!(text.contains(" - people  9/second burst 99 by user (plan pro); bypass: "), "{text}");
        assert_eq!(json[1]["counted"], json!(false));
        let (text, _) = limited(&of("https://a.test/x", &[]), None);
        assert!(text.contains(" - people  50/minute, 500/hour by user; the rules do not let it pass\n"), "{text}");
        assert!(text.starts_with(" ~ flood "), "counted whatever the rules say: {text}");
        assert_eq!(limited(&of("https://c.test/x", &bob), one), (String::new(), json!([])));
    }

    #[test]
    fn what_is_answered_with_400_is_a_reject() {
        for flags in [["--url", "gopher://a.test/", "--method", "GET"], ["--url", "https://a.test/", "--method", "get"]]
        {
            let (text, json) = printed(&flags, None);
            assert!(text.starts_with("reject   "), "{text}");
            assert_eq!((&json["verdict"], &json["trace"]), (&json!("reject"), &json!([])));
            assert_eq!(json["limits"], json!([]));
        }
    }

    #[test]
    fn flags_that_make_no_sense_are_refused() {
        for flags in [&["--groups", "a"][..], &["--header", "x"], &["--user", "a", "--client", "b"], &["--ip", "x"]] {
            assert!(parsed(&[&["--url", "https://a.test/"], flags].concat()).is_err(), "{flags:?}");
        }
    }
}
