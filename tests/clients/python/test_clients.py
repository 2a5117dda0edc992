"""The Python client, unmodified: typed, dynamic and custom objects, watches, a leader election.

Run with the interpreter that `.ci/tools test` made, and KUBECONFIG set:
`python -m unittest -v test_clients`. The definition of the widgets is made by the test that
starts this; the server keeps a short history, so that watches expire.
"""

import base64
import datetime
import json
import os
import threading
import time
import unittest

from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock

GROUP = "python.example.com"
NAMESPACE = "default"
# More than the server's history: SMALL_HISTORY of the test that starts this.
FORGOTTEN = int(os.environ.get("FORGOTTEN", "400"))


def setUpModule():
    config.load_kube_config()


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def widget(name, **spec):
    return {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


class Typed(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()

    def test_an_object_from_making_to_end(self):
        made = self.core.create_namespaced_config_map(NAMESPACE, config_map("whole", a="1"))
        self.assertTrue(made.metadata.uid)
        self.assertIsInstance(made.metadata.creation_timestamp, datetime.datetime)
        made.data["b"] = "2"
        replaced = self.core.replace_namespaced_config_map("whole", NAMESPACE, made)
        self.assertEqual(replaced.data, {"a": "1", "b": "2"})
        with self.assertRaises(ApiException) as stale:
            self.core.replace_namespaced_config_map("whole", NAMESPACE, made)
        self.assertEqual(stale.exception.status, 409)
        self.assertIn("the object has been modified", stale.exception.body)
        # A dictionary is sent as a strategic merge patch, a list as a JSON patch.
        patched = self.core.patch_namespaced_config_map("whole", NAMESPACE, {"data": {"a": None}})
        self.assertEqual(patched.data, {"b": "2"})
        patched = self.core.patch_namespaced_config_map(
            "whole", NAMESPACE, [{"op": "add", "path": "/data/c", "value": "3"}]
        )
        self.assertEqual(patched.data, {"b": "2", "c": "3"})
        status = self.core.delete_namespaced_config_map("whole", NAMESPACE)
        self.assertEqual(status.status, "Success")
        with self.assertRaises(ApiException) as gone:
            self.core.read_namespaced_config_map("whole", NAMESPACE)
        self.assertEqual((gone.exception.status, gone.exception.reason), (404, "Not Found"))

    def test_secrets_hold_bytes(self):
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="bytes"), string_data={"a": "ä"})
        made = self.core.create_namespaced_secret(NAMESPACE, secret)
        self.assertEqual(base64.b64decode(made.data["a"]).decode(), "ä")
        self.assertIsNone(made.string_data)

    def test_lists_in_pages(self):
        for number in range(25):
            item = config_map(f"page-{number:02}")
            item.metadata.labels = {"pages": "yes"}
            self.core.create_namespaced_config_map(NAMESPACE, item)
        names, token, pages, versions = [], None, 0, set()
        while True:
            page = self.core.list_namespaced_config_map(
                NAMESPACE, label_selector="pages=yes", limit=10, _continue=token
            )
            pages += 1
            versions.add(page.metadata.resource_version)
            names += [item.metadata.name for item in page.items]
            token = page.metadata._continue
            if not token:
                break
            # What comes after the first page is not in the list.
            late = config_map(f"page-9{pages}")
            late.metadata.labels = {"pages": "yes"}
            self.core.create_namespaced_config_map(NAMESPACE, late)
        self.assertEqual(names, [f"page-{number:02}" for number in range(25)])
        self.assertEqual((pages, len(versions)), (3, 1))
        self.core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="pages=yes")
        self.assertEqual(self.core.list_namespaced_config_map(NAMESPACE, label_selector="pages=yes").items, [])

    def test_a_pod_is_validated_and_evicted(self):
        pod = client.V1Pod(
            metadata=client.V1ObjectMeta(name="evicted"),
            spec=client.V1PodSpec(
                containers=[client.V1Container(name="c", image="example.com/a:1")],
                termination_grace_period_seconds=0,
            ),
        )
        self.core.create_namespaced_pod(NAMESPACE, pod)
        self.core.patch_namespaced_pod_status("evicted", NAMESPACE, {"status": {"phase": "Running"}})
        self.assertEqual(self.core.read_namespaced_pod_status("evicted", NAMESPACE).status.phase, "Running")
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
        self.core.create_namespaced_pod_eviction("evicted", NAMESPACE, eviction)
        with self.assertRaises(ApiException) as gone:
            self.core.read_namespaced_pod("evicted", NAMESPACE)
        self.assertEqual(gone.exception.status, 404)

    def test_reviews_of_access(self):
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(
                resource_attributes=client.V1ResourceAttributes(verb="delete", resource="secrets")
            )
        )
        answer = client.AuthorizationV1Api().create_self_subject_access_review(review)
        self.assertTrue(answer.status.allowed)

    def test_versions_and_groups(self):
        self.assertEqual(client.VersionApi().get_code().major, "1")
        groups = {group.name for group in client.ApisApi().get_api_versions().groups}
        self.assertLessEqual({"apps", "coordination.k8s.io", GROUP}, groups)
        definitions = client.ApiextensionsV1Api().list_custom_resource_definition().items
        self.assertIn(f"widgets.{GROUP}", [definition.metadata.name for definition in definitions])


class Watching(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()

    def test_events_of_all_types(self):
        start = self.core.list_namespaced_secret(NAMESPACE).metadata.resource_version
        secret = client.V1Secret(metadata=client.V1ObjectMeta(name="watched"))
        self.core.create_namespaced_secret(NAMESPACE, secret)
        self.core.patch_namespaced_secret("watched", NAMESPACE, {"metadata": {"labels": {"a": "b"}}})
        self.core.delete_namespaced_secret("watched", NAMESPACE)
        seen = []
        watching = watch.Watch()
        for event in watching.stream(
            self.core.list_namespaced_secret,
            NAMESPACE,
            resource_version=start,
            field_selector="metadata.name=watched",
            timeout_seconds=20,
        ):
            self.assertIsInstance(event["object"], client.V1Secret)
            seen.append(event["type"])
            if len(seen) == 3:
                watching.stop()
        self.assertEqual(seen, ["ADDED", "MODIFIED", "DELETED"])

    def test_a_watch_ends_when_its_time_is_over(self):
        events = list(
            watch.Watch().stream(
                self.core.list_namespaced_secret,
                NAMESPACE,
                field_selector="metadata.name=none",
                timeout_seconds=1,
            )
        )
        self.assertEqual(events, [])

    def test_it_goes_on_from_where_it_was(self):
        """The client resumes by itself when a watch has timed out."""
        name = "resumed"
        self.core.create_namespaced_config_map(NAMESPACE, config_map(name, n="0"))
        watching, seen = watch.Watch(), []

        def write():
            for number in range(1, 6):
                self.core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"n": str(number)}})

        writer = threading.Thread(target=write)
        for event in watching.stream(
            self.core.list_namespaced_config_map, NAMESPACE, field_selector=f"metadata.name={name}", timeout_seconds=20
        ):
            if event["type"] == "ADDED":
                writer.start()
            seen.append(event["object"].data["n"])
            if seen[-1] == "5":
                watching.stop()
        writer.join()
        self.assertEqual(seen, ["0", "1", "2", "3", "4", "5"])
        resumed = watch.Watch()
        resumed.resource_version = watching.resource_version
        self.core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"n": "6"}})
        for event in resumed.stream(
            self.core.list_namespaced_config_map,
            NAMESPACE,
            field_selector=f"metadata.name={name}",
            resource_version=watching.resource_version,
            timeout_seconds=20,
        ):
            self.assertEqual((event["type"], event["object"].data["n"]), ("MODIFIED", "6"))
            resumed.stop()

    def test_what_is_forgotten_is_gone_and_a_new_list_helps(self):
        old = self.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        self.core.create_namespaced_config_map(NAMESPACE, config_map("busy"))
        for number in range(FORGOTTEN):
            self.core.patch_namespaced_config_map("busy", NAMESPACE, {"data": {"n": str(number)}})
        with self.assertRaises(ApiException) as gone:
            for _ in watch.Watch().stream(
                self.core.list_namespaced_config_map, NAMESPACE, resource_version=old, timeout_seconds=5
            ):
                pass
        self.assertEqual(gone.exception.status, 410)
        fresh = watch.Watch()
        for event in fresh.stream(
            self.core.list_namespaced_config_map, NAMESPACE, field_selector="metadata.name=busy", timeout_seconds=20
        ):
            self.assertEqual(event["object"].data["n"], str(FORGOTTEN - 1))
            fresh.stop()


class Custom(unittest.TestCase):
    def setUp(self):
        self.api = client.CustomObjectsApi()
        self.at = {"group": GROUP, "version": "v1", "namespace": NAMESPACE, "plural": "widgets"}

    def test_an_object_from_making_to_end(self):
        made = self.api.create_namespaced_custom_object(body=widget("custom", color="red"), **self.at)
        self.assertEqual(made["spec"], {"color": "red", "replicas": 1})
        patched = self.api.patch_namespaced_custom_object(name="custom", body={"spec": {"replicas": 3}}, **self.at)
        self.assertEqual(patched["spec"]["replicas"], 3)
        self.assertEqual(patched["metadata"]["generation"], 2)
        self.api.patch_namespaced_custom_object_status(name="custom", body={"status": {"replicas": 3}}, **self.at)
        scale = self.api.get_namespaced_custom_object_scale(name="custom", **self.at)
        self.assertEqual((scale["spec"]["replicas"], scale["status"]["replicas"]), (3, 3))
        self.assertEqual(len(self.api.list_namespaced_custom_object(label_selector="a!=b", **self.at)["items"]), 1)
        self.api.delete_namespaced_custom_object(name="custom", **self.at)
        self.assertEqual(self.api.list_namespaced_custom_object(**self.at)["items"], [])

    def test_a_wrong_value_is_told(self):
        with self.assertRaises(ApiException) as wrong:
            self.api.create_namespaced_custom_object(body=widget("wrong", color="blue"), **self.at)
        self.assertEqual(wrong.exception.status, 422)
        self.assertIn("Unsupported value", wrong.exception.body)

    def test_watching(self):
        watching, seen = watch.Watch(), []
        self.api.create_namespaced_custom_object(body=widget("watched", color="red"), **self.at)
        for event in watching.stream(
            self.api.list_namespaced_custom_object,
            GROUP,
            "v1",
            NAMESPACE,
            "widgets",
            field_selector="metadata.name=watched",
            timeout_seconds=20,
        ):
            seen.append(event["type"])
            if event["type"] == "ADDED":
                self.api.delete_namespaced_custom_object(name="watched", **self.at)
            else:
                watching.stop()
        self.assertEqual(seen, ["ADDED", "DELETED"])


class Dynamic(unittest.TestCase):
    def setUp(self):
        self.client = dynamic.DynamicClient(client.ApiClient())
        self.widgets = self.client.resources.get(api_version=f"{GROUP}/v1", kind="Widget")
        self.maps = self.client.resources.get(api_version="v1", kind="ConfigMap")

    def test_what_it_discovers(self):
        self.assertEqual((self.widgets.name, self.widgets.namespaced), ("widgets", True))
        self.assertIn("status", self.widgets.subresources)
        self.assertEqual(len(self.client.resources.search(kind="Widget", group=GROUP)) > 0, True)

    def test_an_object_from_making_to_end(self):
        made = self.widgets.create(body=widget("dynamic", color="red"), namespace=NAMESPACE)
        self.assertEqual(made.spec.replicas, 1)
        made.spec.color = "green"
        replaced = self.widgets.replace(body=made.to_dict(), namespace=NAMESPACE)
        self.assertEqual(replaced.spec.color, "green")
        with self.assertRaises(ConflictError):
            self.widgets.replace(body=made.to_dict(), namespace=NAMESPACE)
        patched = self.widgets.patch(
            body={"spec": {"replicas": 2}},
            name="dynamic",
            namespace=NAMESPACE,
            content_type="application/merge-patch+json",
        )
        self.assertEqual(patched.spec.replicas, 2)
        self.assertEqual([item.metadata.name for item in self.widgets.get(namespace=NAMESPACE).items], ["dynamic"])
        self.widgets.delete(name="dynamic", namespace=NAMESPACE)
        with self.assertRaises(NotFoundError):
            self.widgets.get(name="dynamic", namespace=NAMESPACE)

    def test_server_side_apply(self):
        def apply(manager, force=False, **data):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
            return self.maps.server_side_apply(
                body=body, name="applied", namespace=NAMESPACE, field_manager=manager, force_conflicts=force
            )

        apply("one", a="1", b="1")
        with self.assertRaises(ConflictError) as conflict:
            apply("two", a="2")
        self.assertIn('conflict with "one"', conflict.exception.summary())
        taken = apply("two", force=True, a="2")
        self.assertEqual(taken.data.to_dict(), {"a": "2", "b": "1"})
        self.assertEqual({entry.manager for entry in taken.metadata.managedFields}, {"one", "two"})
        # What a manager no longer names goes, unless another has it.
        self.assertEqual(apply("one").data.to_dict(), {"a": "2"})

    def test_watching(self):
        self.maps.create(body={"metadata": {"name": "seen"}}, namespace=NAMESPACE)
        types = []
        for event in self.maps.watch(namespace=NAMESPACE, field_selector="metadata.name=seen", timeout=20):
            types.append(event["type"])
            if event["type"] == "ADDED":
                self.maps.delete(name="seen", namespace=NAMESPACE)
            else:
                break
        self.assertEqual(types, ["ADDED", "DELETED"])


class Leading(unittest.TestCase):
    def test_one_of_two_candidates_leads_and_goes_on_leading(self):
        """The client's own election, whose lock is a ConfigMap in this version."""
        led = [threading.Event(), threading.Event()]

        def candidate(number):
            lock = ConfigMapLock("elected", NAMESPACE, f"candidate-{number}")
            settings = electionconfig.Config(
                lock,
                lease_duration=3,
                renew_deadline=2,
                retry_period=1,
                onstarted_leading=led[number].set,
                onstopped_leading=lambda: None,
            )
            threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

        def holder():
            lock = client.CoreV1Api().read_namespaced_config_map("elected", NAMESPACE)
            return json.loads(lock.metadata.annotations["control-plane.alpha.kubernetes.io/leader"])

        candidate(0)
        self.assertTrue(led[0].wait(30))
        candidate(1)
        first = holder()
        self.assertEqual(first["holderIdentity"], "candidate-0")
        until = time.monotonic() + 30
        while holder()["renewTime"] == first["renewTime"]:
            self.assertLess(time.monotonic(), until, "it is never renewed")
            time.sleep(0.1)
        self.assertEqual(holder()["holderIdentity"], "candidate-0")
        self.assertFalse(led[1].is_set())

    def test_a_lease_is_taken_by_one_of_two(self):
        leases = client.CoordinationV1Api()
        now = datetime.datetime.now(datetime.timezone.utc)
        spec = client.V1LeaseSpec(holder_identity="", lease_duration_seconds=10, renew_time=now)
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name="taken"), spec=spec)
        leases.create_namespaced_lease(NAMESPACE, lease)
        outcomes, start = [], threading.Barrier(8)

        def take(number):
            seen = leases.read_namespaced_lease("taken", NAMESPACE)
            seen.spec.holder_identity = f"candidate-{number}"
            start.wait()
            try:
                leases.replace_namespaced_lease("taken", NAMESPACE, seen)
                outcomes.append(number)
            except ApiException as refused:
                self.assertEqual(refused.status, 409)

        threads = [threading.Thread(target=take, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(outcomes), 1)
        held = leases.read_namespaced_lease("taken", NAMESPACE)
        self.assertEqual(held.spec.holder_identity, f"candidate-{outcomes[0]}")
        self.assertEqual(held.spec.renew_time, now)


if __name__ == "__main__":
    unittest.main(verbosity=2)
