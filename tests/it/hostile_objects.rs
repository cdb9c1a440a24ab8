//! Objects that somebody with few rights can write into one namespace, and that must stop nobody elsewhere: a view of the whole cluster
//! has them in it.

use crate::jit_filing::nested;
use crate::office::{Office, create};
use crate::support::operator::OperatorOptions;
use crate::world::{DOCS, Stamp, World};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A process that lists what is stored has to become ready.
fn another_process_becomes_ready(world: &World) {
    let options = OperatorOptions { name: "second".to_owned(), ..OperatorOptions::default() };
    drop(world.another(options));
}

#[test]
fn a21_a_request_of_any_depth_stops_nobody_else() {
    // A world of its own: it may break.
    let world = World::start_shareable();
    let office = Office::open(&world, Stamp::ByPolicy, "deep");
    let other = world.tenant("bystander");
    world.exchange(&other.token).expect(200);
    let operation = json!({"capability": office.capability, "audience": DOCS, "parameters": nested(500)});
    // Whether it is refused at once or denied later is another matter.
    _ = office.file(&office.bot, "deep", &json!({"operation": operation}));
    // Longer than a view of the cluster may be old.
    let end = Instant::now() + Duration::from_secs(12);
    while Instant::now() < end {
        world.exchange(&other.token).expect(200);
        std::thread::sleep(Duration::from_millis(250));
    }
    another_process_becomes_ready(&world);
}

#[test]
fn a21_fields_that_somebody_claims_to_manage_stop_nobody_else() {
    let world = World::start_shareable();
    let office = Office::open(&world, Stamp::ByPolicy, "managed");
    let claimed = |api: &str| {
        let fields = (1..500).fold(json!({}), |inner, _| json!({"f:a": inner}));
        json!([{"manager": "me", "operation": "Update", "apiVersion": api, "fieldsType": "FieldsV1", "time": "2026-01-01T00:00:00Z", "fieldsV1": fields}])
    };
    let metadata = |api: &str| json!({"namespace": office.namespace(), "name": "deep", "managedFields": claimed(api)});
    let container = json!({"name": "agent", "image": "registry.k8s.io/pause:3.10"});
    let mut request = office.object(&office.bot, "deep", &json!({}));
    request["metadata"] = metadata("countersign.dev/v1alpha1");
    let objects: [Value; 3] = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("v1")}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata("v1"), "spec": {"serviceAccountName": "bot", "containers": [container]}}),
        request,
    ];
    for object in &objects {
        create(&office.admin(), object).expect("whoever may create one may claim that");
    }
    another_process_becomes_ready(&world);
}
