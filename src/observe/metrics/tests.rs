use super::*;

/// Names and labels are contracts (CONTRACT 9): dashboards of others read them.
#[test]
fn names_and_labels_are_those_of_the_contract() {
    let metrics = Metrics::new().unwrap();
    let took = Duration::from_micros(12);
    metrics.request(Role::Edge, "grafana", "BREW", StatusCode::OK, took);
    metrics.decision(&Verdict::Refuse, Some("public"), took);
    metrics.rule_report("new rule", Ruling::Refuse);
    metrics.rule_error("new rule");
    metrics.login("password", "success");
    metrics.login_delayed("name");
    metrics.token_refresh("success");
    metrics.session_cache("hit");
    metrics.store_up("sessions", true);
    metrics.store_operation("sessions", "find", took);
    metrics.upstream_request("grafana", "http://127.0.0.1:3000", StatusCode::BAD_GATEWAY);
    metrics.config_reload(true, 1_700_000_000);
    metrics.restart_needed(&["storage"]);
    metrics.audit_event("sign_in");
    metrics.stream_ended("session");
    metrics.connection_refused("source");
    metrics.limits.counted("chat", "limited");
    let mut lines: Vec<String> = metrics
        .registry
        .gather()
        .iter()
        .map(|family| {
            let labels: Vec<_> = family.get_metric()[0].get_label().iter().map(|label| label.name()).collect();
            format!("{}{{{}}}", family.name(), labels.join(","))
        })
        .collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"), @r"
    postern_audit_events_total{event}
    postern_auth_login_delayed_total{by}
    postern_auth_login_total{provider,status}
    postern_auth_session_revoked_total{}
    postern_auth_token_refresh_total{status}
    postern_auth_token_revoked_total{}
    postern_build_info{commit,version}
    postern_config_last_reload_success_timestamp_seconds{}
    postern_config_reload_total{status}
    postern_config_restart_needed{setting}
    postern_connections_open{}
    postern_connections_refused_total{why}
    postern_decision_duration_seconds{}
    postern_decisions_total{rule,verdict}
    postern_headers_stripped_total{}
    postern_http_request_duration_seconds{role,route}
    postern_http_requests_total{method,role,route,status}
    postern_rate_limit_by_share{}
    postern_rate_limit_exceeded_total{limit}
    postern_rate_limit_keys_shared_total{}
    postern_rate_limit_keys{}
    postern_rate_limit_requests_total{limit,status}
    postern_rule_errors_total{rule}
    postern_rule_reports_total{rule,verdict}
    postern_session_cache_total{result}
    postern_session_cookie_conflicts_total{}
    postern_sessions_active{}
    postern_store_operation_duration_seconds{operation,store}
    postern_store_up{store}
    postern_streams_ended_total{reason}
    postern_upstream_requests_total{server,status,upstream}
    ");
    let text = metrics.render();
    assert!(text.contains(r#"postern_http_requests_total{method="other",role="edge",route="grafana",status="200"} 1"#));
}

#[test]
fn a_failed_reload_keeps_the_time_of_the_last_good_one() {
    let metrics = Metrics::new().unwrap();
    metrics.config_reload(true, 10);
    metrics.config_reload(false, 20);
    assert!(metrics.render().contains("postern_config_last_reload_success_timestamp_seconds 10"));
}

#[test]
fn a_setting_that_is_as_it_was_at_the_start_needs_no_restart_any_more() {
    let metrics = Metrics::new().unwrap();
    metrics.restart_needed(&["storage", "log"]);
    metrics.restart_needed(&["log"]);
    let text = metrics.render();
    assert!(text.contains(r#"postern_config_restart_needed{setting="log"} 1"#) && !text.contains("storage"), "{text}");
}
