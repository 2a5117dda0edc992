//! Tests of tables.

use super::*;
use rstest::rstest;

fn now() -> Timestamp {
    "2025-01-02T00:00:00Z".parse().expect("time")
}

fn cells(columns: &[Column], object: &Value) -> Vec<Value> {
    let table = render(columns, std::slice::from_ref(object), now(), IncludeObject::None);
    table["rows"][0]["cells"].as_array().expect("cells").clone()
}

fn names(columns: &[Column]) -> Vec<String> {
    columns
        .iter()
        .map(|column| {
            let wide = if column.definition["priority"] == 0 { "" } else { "*" };
            format!("{}{wide}", column.definition["name"].as_str().expect("name"))
        })
        .collect()
}

#[rstest]
#[case(-5, "<invalid>")]
#[case(-1, "0s")]
#[case(0, "0s")]
#[case(119, "119s")]
#[case(120, "2m")]
#[case(125, "2m5s")]
#[case(600, "10m")]
#[case(179 * 60, "179m")]
#[case(3 * 3600, "3h")]
#[case(3 * 3600 + 60, "3h1m")]
#[case(8 * 3600 + 60, "8h")]
#[case(47 * 3600, "47h")]
#[case(48 * 3600, "2d")]
#[case(52 * 3600, "2d4h")]
#[case(8 * 86_400 + 3600, "8d")]
#[case(729 * 86_400, "729d")]
#[case(730 * 86_400, "2y")]
#[case(800 * 86_400, "2y70d")]
#[case(3000 * 86_400, "8y")]
fn durations_read_as_kubectl_prints_them(#[case] seconds: i64, #[case] expected: &str) {
    assert_eq!(human_duration(seconds), expected);
}

#[rstest]
#[case(".spec.replicas", "[3]")]
#[case("{.spec.replicas}", "[3]")]
#[case("$.spec['replicas']", "[3]")]
#[case(".spec.missing.deep", "[]")]
#[case(".status.conditions[?(@.type==\"Ready\")].status", "[\"True\"]")]
#[case(".status.conditions[?(@.type == 'Up')].status", "[]")]
#[case(".status.conditions[?(@.weight>1)].type", "[\"Live\"]")]
#[case(".status.conditions[?(@.weight)].type", "[\"Live\"]")]
#[case(".status.conditions[*].type", "[\"Ready\",\"Live\"]")]
#[case(".status.conditions[-1].type", "[\"Live\"]")]
#[case(".status.conditions[0:1].type", "[\"Ready\"]")]
#[case(".status.conditions[0,1].type", "[\"Ready\",\"Live\"]")]
#[case(r".metadata.annotations.a\.b/c", "[\"x\"]")]
#[case(".metadata.annotations['a.b/c']", "[\"x\"]")]
#[case("..type", "[\"Ready\",\"Live\"]")]
fn json_paths_find_what_they_name(#[case] path: &str, #[case] expected: &str) {
    let object = json!({
        "metadata": {"annotations": {"a.b/c": "x"}},
        "spec": {"replicas": 3},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Live", "status": "False", "weight": 2}]},
    });
    let found = JsonPath::parse(path).expect("valid").find(&object);
    assert_eq!(json!(found).to_string(), expected);
}

#[rstest]
#[case("spec")]
#[case(".a[")]
#[case(".a[x]")]
#[case(".a[?(@.b==)]")]
#[case("..")]
fn bad_json_paths_are_refused(#[case] path: &str) {
    assert!(JsonPath::parse(path).is_err());
}

#[test]
fn printer_columns_print_by_type() {
    let columns = columns_for_crd(&json!([
        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp", "priority": 1},
        {"name": "Labels", "type": "string", "jsonPath": ".metadata.labels", "description": "All labels"},
        {"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused"},
        {"name": "Text", "type": "string", "jsonPath": ".spec.replicas"},
        {"name": "Bad date", "type": "date", "jsonPath": ".metadata.name"},
        {"name": "Missing", "type": "string", "jsonPath": ".spec.none"},
    ]));
    assert_eq!(
        names(&columns),
        [
            "Name", "Replicas", "Since*", "Labels", "Paused", "Text", "Bad date", "Missing"
        ]
    );
    assert_eq!(columns[3].definition["description"], "All labels");
    assert_eq!(
        columns[1].definition,
        json!({"name": "Replicas", "type": "integer", "format": "", "priority": 0,
            "description": "Custom resource definition column (in JSONPath format): .spec.replicas"})
    );
    let object = json!({"metadata": {"name": "n", "creationTimestamp": "2025-01-01T22:00:00Z", "labels": {"a": "<b>"}},
        "spec": {"replicas": 3, "paused": true}});
    assert_eq!(
        cells(&columns, &object),
        [
            json!("n"),
            json!(3),
            json!("120m"),
            json!("{\"a\":\"\\u003cb\\u003e\"}"),
            json!(true),
            json!("3"),
            json!("<invalid>"),
            json!(null)
        ]
    );
    assert_eq!(names(&columns_for_crd(&json!(null))), ["Name", "Age"]);
}

#[test]
fn rows_carry_what_is_asked_for() {
    let object = json!({"kind": "K", "metadata": {"name": "n"}, "spec": {}});
    let columns = columns_for_crd(&json!([]));
    let row = |include| render(&columns, std::slice::from_ref(&object), now(), include)["rows"][0]["object"].clone();
    assert_eq!(row(IncludeObject::None), json!(null));
    assert_eq!(row(IncludeObject::Object), object);
    assert_eq!(
        row(IncludeObject::Metadata),
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "n"}})
    );
}

#[rstest]
#[case("Namespace", "Name Status Age", json!({"status": {"phase": "Active"}}), r#"["n","Active","24h"]"#)]
#[case("Secret", "Name Type Data Age", json!({"type": "Opaque", "data": {"a": "", "b": ""}}), r#"["n","Opaque",2,"24h"]"#)]
#[case("ConfigMap", "Name Data Age", json!({"data": {"a": ""}, "binaryData": {"b": ""}}), r#"["n",2,"24h"]"#)]
#[case("ServiceAccount", "Name Secrets Age", json!({}), r#"["n",0,"24h"]"#)]
#[case("Lease", "Name Holder Age", json!({"spec": {"holderIdentity": "me"}}), r#"["n","me","24h"]"#)]
#[case("Role", "Name Created At", json!({}), r#"["n","2025-01-01T00:00:00Z"]"#)]
#[case("CustomResourceDefinition", "Name Created At", json!({}), r#"["n","2025-01-01T00:00:00Z"]"#)]
#[case("PodDisruptionBudget", "Name Min Available Max Unavailable Allowed Disruptions Age",
    json!({"spec": {"minAvailable": "50%"}, "status": {"disruptionsAllowed": 2}}), r#"["n","50%","N/A",2,"24h"]"#)]
#[case("RoleBinding", "Name Role Age Users* Groups* ServiceAccounts*",
    json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "ns"}]}), r#"["n","Role/r","24h","u","","ns/s"]"#)]
#[case("Node", "Name Status Roles Age Version Internal-IP* External-IP* OS-Image* Kernel-Version* Container-Runtime*",
    json!({"metadata": {"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z",
            "labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}], "nodeInfo": {"kubeletVersion": "v1.34.0"}}}),
    r#"["n","Ready,SchedulingDisabled","control-plane,worker","24h","v1.34.0","10.0.0.1","<none>","<unknown>","<unknown>","<unknown>"]"#)]
#[case("Pod", "Name Ready Status Restarts Age IP* Node* Nominated Node* Readiness Gates*",
    json!({"spec": {"containers": [{}, {}], "nodeName": "node"}, "status": {"phase": "Running", "containerStatuses": [
        {"ready": true, "restartCount": 2, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": "2025-01-01T23:55:00Z"}}},
        {"ready": false, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]}}),
    r#"["n","1/2","CrashLoopBackOff","2 (5m ago)","24h","<none>","node","<none>","<none>"]"#)]
#[case("DaemonSet", "Name Desired Current Ready Up-to-date Available Node Selector Age Containers* Images* Selector*",
    json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": {"nodeSelector": {"x": "y"},
        "containers": [{"name": "c", "image": "i"}]}}}, "status": {"desiredNumberScheduled": 3, "numberReady": 1}}),
    r#"["n",3,0,1,0,0,"x=y","24h","c","i","a=b"]"#)]
#[case("Event", "Last Seen Type Reason Object Subobject* Source* Message First Seen* Count* Name*",
    json!({"lastTimestamp": "2025-01-01T23:59:00Z", "firstTimestamp": "2025-01-01T23:00:00Z", "type": "Normal",
        "reason": "Created", "involvedObject": {"kind": "Machine", "name": "m"}, "source": {"component": "core"},
        "message": "made it\n", "count": 4}),
    r#"["60s","Normal","Created","machine/m","","core","made it","60m",4,"n"]"#)]
fn built_in_kinds_print_as_the_real_server_prints_them(
    #[case] kind: &str,
    #[case] expected_names: &str,
    #[case] mut object: Value,
    #[case] expected_cells: &str,
) {
    if object.get("metadata").is_none() {
        object["metadata"] = json!({"name": "n", "creationTimestamp": "2025-01-01T00:00:00Z"});
    }
    let columns = default_columns(kind);
    assert_eq!(names(&columns).join(" "), expected_names);
    assert_eq!(json!(cells(&columns, &object)).to_string(), expected_cells);
    assert!(columns.iter().all(|column| {
        column.definition["description"]
            .as_str()
            .is_some_and(|text| !text.is_empty())
    }));
}

#[test]
fn pods_tell_what_keeps_them() {
    let columns = default_columns("Pod");
    let status = |pod: Value| cells(&columns, &pod)[2].clone();
    assert_eq!(status(json!({"status": {"phase": "Pending"}})), "Pending");
    assert_eq!(
        status(json!({"metadata": {"deletionTimestamp": "x"}, "status": {"phase": "Running"}})),
        "Terminating"
    );
    assert_eq!(
        status(
            json!({"spec": {"initContainers": [{}, {}]}, "status": {"initContainerStatuses": [
            {"state": {"terminated": {"exitCode": 0}}}, {"state": {"waiting": {"reason": "PodInitializing"}}}]}})
        ),
        "Init:1/2"
    );
    assert_eq!(
        status(json!({"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}})),
        "ExitCode:3"
    );
}
