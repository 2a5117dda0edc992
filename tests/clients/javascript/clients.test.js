// The JavaScript client, unmodified: typed, custom and any objects, patches, watches, informers.
//
// Run with node's own test runner, from a folder that has the node_modules which `.ci/tools test`
// installed, and KUBECONFIG set. The definition of the widgets is made by the test that starts
// this; the server keeps a short history, so that watches expire.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';

import * as k8s from '@kubernetes/client-node';

const group = 'javascript.example.com';
const namespace = 'default';
const at = { group, version: 'v1', namespace, plural: 'widgets' };
// More than the server's history.
const forgotten = Number(process.env.FORGOTTEN ?? 400);

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const custom = config.makeApiClient(k8s.CustomObjectsApi);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const configMap = (name, data = {}, labels = {}) => ({ metadata: { name, labels }, data });
const widget = (name, spec) => ({ apiVersion: `${group}/v1`, kind: 'Widget', metadata: { name, namespace }, spec });
const refused = (code) => (error) => {
    assert.equal(error.code, code, String(error));
    return true;
};
const patched = (type) => k8s.setHeaderOptions('Content-Type', type);

// Calls until it is true; the last state is told if that is never.
async function eventually(ask, what) {
    const until = Date.now() + 30_000;
    while (!(await ask())) {
        assert.ok(Date.now() < until, `never: ${what}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

describe('typed objects', () => {
    test('from making to end', async () => {
        const made = await core.createNamespacedConfigMap({ namespace, body: configMap('whole', { a: '1' }) });
        assert.ok(made.metadata.uid);
        assert.ok(made.metadata.creationTimestamp instanceof Date);
        const changed = await core.replaceNamespacedConfigMap({
            name: 'whole',
            namespace,
            body: { ...made, data: { b: '2' } },
        });
        assert.deepEqual(changed.data, { b: '2' });
        await assert.rejects(core.replaceNamespacedConfigMap({ name: 'whole', namespace, body: made }), refused(409));
        const status = await core.deleteNamespacedConfigMap({ name: 'whole', namespace });
        assert.equal(status.status, 'Success');
        await assert.rejects(core.readNamespacedConfigMap({ name: 'whole', namespace }), refused(404));
    });

    test('patches of each type', async () => {
        const name = 'patched';
        await core.createNamespacedPod({
            namespace,
            body: {
                metadata: { name },
                spec: {
                    containers: [
                        { name: 'a', image: 'example.com/a:1' },
                        { name: 'b', image: 'example.com/b:1' },
                    ],
                },
            },
        });
        const images = (pod) => pod.spec.containers.map((container) => container.image);
        let pod = await core.patchNamespacedPod(
            { name, namespace, body: [{ op: 'replace', path: '/spec/containers/0/image', value: 'example.com/a:2' }] },
            patched(k8s.PatchStrategy.JsonPatch),
        );
        assert.deepEqual(images(pod), ['example.com/a:2', 'example.com/b:1']);
        pod = await core.patchNamespacedPod(
            { name, namespace, body: { spec: { containers: [{ name: 'b', image: 'example.com/b:2' }] } } },
            patched(k8s.PatchStrategy.StrategicMergePatch),
        );
        assert.deepEqual(images(pod), ['example.com/a:2', 'example.com/b:2']);
        pod = await core.patchNamespacedPod(
            { name, namespace, body: { metadata: { labels: { a: 'b' } } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        assert.deepEqual(pod.metadata.labels, { a: 'b' });
        pod = await core.patchNamespacedPodStatus(
            { name, namespace, body: { status: { phase: 'Running' } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        assert.equal(pod.status.phase, 'Running');
        await assert.rejects(
            core.patchNamespacedPod(
                { name, namespace, body: [{ op: 'test', path: '/metadata/name', value: 'other' }] },
                patched(k8s.PatchStrategy.JsonPatch),
            ),
            refused(422),
        );
        await core.deleteNamespacedPod({ name, namespace, gracePeriodSeconds: 0 });
    });

    test('server-side apply', async () => {
        const apply = (fieldManager, value, force) =>
            core.patchNamespacedConfigMap(
                {
                    name: 'applied',
                    namespace,
                    fieldManager,
                    force,
                    body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied' }, data: { a: value } },
                },
                patched(k8s.PatchStrategy.ServerSideApply),
            );
        await apply('one', '1');
        await assert.rejects(apply('two', '2'), refused(409));
        const taken = await apply('two', '2', true);
        assert.deepEqual(
            taken.metadata.managedFields.map((entry) => entry.manager),
            ['two'],
        );
    });

    test('lists in pages', async () => {
        const labels = { pages: 'yes' };
        for (let number = 10; number < 35; number++) {
            await core.createNamespacedConfigMap({ namespace, body: configMap(`page-${number}`, {}, labels) });
        }
        const names = [];
        let _continue;
        do {
            const page = await core.listNamespacedConfigMap({ namespace, labelSelector: 'pages=yes', limit: 10, _continue });
            names.push(...page.items.map((item) => item.metadata.name));
            _continue = page.metadata._continue;
        } while (_continue);
        assert.deepEqual(
            names,
            Array.from({ length: 25 }, (_, number) => `page-${number + 10}`),
        );
        await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'pages=yes' });
        assert.equal((await core.listNamespacedConfigMap({ namespace, labelSelector: 'pages=yes' })).items.length, 0);
    });
});

describe('custom objects', () => {
    test('from making to end', async () => {
        const made = await custom.createNamespacedCustomObject({ ...at, body: widget('custom', { color: 'red' }) });
        assert.deepEqual(made.spec, { color: 'red', replicas: 1 });
        const scaled = await custom.patchNamespacedCustomObject(
            { ...at, name: 'custom', body: { spec: { replicas: 3 } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        assert.equal(scaled.metadata.generation, 2);
        await custom.patchNamespacedCustomObjectStatus(
            { ...at, name: 'custom', body: { status: { replicas: 2 } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        const scale = await custom.getNamespacedCustomObjectScale({ ...at, name: 'custom' });
        assert.deepEqual([scale.spec.replicas, scale.status.replicas], [3, 2]);
        await assert.rejects(
            custom.createNamespacedCustomObject({ ...at, body: widget('wrong', { color: 'blue' }) }),
            refused(422),
        );
        await custom.deleteNamespacedCustomObject({ ...at, name: 'custom' });
        const rest = await custom.listNamespacedCustomObject(at);
        assert.equal(rest.items.length, 0);
    });

    test('by the client for any object', async () => {
        const made = await objects.create(widget('any', { color: 'green' }));
        assert.equal(made.spec.replicas, 1);
        made.spec.color = 'red';
        const replaced = await objects.replace(made);
        assert.equal(replaced.spec.color, 'red');
        const read = await objects.read(widget('any'));
        assert.equal(read.metadata.resourceVersion, replaced.metadata.resourceVersion);
        const applied = await objects.patch(
            { ...widget('any'), metadata: { name: 'any', namespace, labels: { a: 'b' } } },
            undefined,
            undefined,
            'any',
            true,
            k8s.PatchStrategy.ServerSideApply,
        );
        assert.deepEqual(applied.metadata.labels, { a: 'b' });
        const list = await objects.list(`${group}/v1`, 'Widget', namespace);
        assert.deepEqual(
            list.items.map((item) => item.metadata.name),
            ['any'],
        );
        await objects.delete(widget('any'));
        await assert.rejects(objects.read(widget('any')), refused(404));
    });
});

describe('watching', () => {
    test('events of all types', async () => {
        const { metadata } = await core.listNamespacedSecret({ namespace });
        const seen = [];
        let ended;
        const end = new Promise((resolve) => (ended = resolve));
        const controller = await new k8s.Watch(config).watch(
            `/api/v1/namespaces/${namespace}/secrets`,
            { resourceVersion: metadata.resourceVersion, fieldSelector: 'metadata.name=watched' },
            (type, object) => seen.push(`${type} ${object.metadata.name}`),
            ended,
        );
        await core.createNamespacedSecret({ namespace, body: { metadata: { name: 'watched' }, stringData: { a: 'b' } } });
        await core.patchNamespacedSecret(
            { name: 'watched', namespace, body: { metadata: { labels: { a: 'b' } } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        await core.deleteNamespacedSecret({ name: 'watched', namespace });
        await eventually(() => seen.length === 3, 'three events');
        assert.deepEqual(seen, ['ADDED watched', 'MODIFIED watched', 'DELETED watched']);
        controller.abort();
        await end;
    });

    test('what is forgotten is gone', async () => {
        const { metadata } = await core.listNamespacedConfigMap({ namespace });
        await core.createNamespacedConfigMap({ namespace, body: configMap('busy') });
        for (let number = 0; number < forgotten; number++) {
            await core.patchNamespacedConfigMap(
                { name: 'busy', namespace, body: { data: { number: String(number) } } },
                patched(k8s.PatchStrategy.MergePatch),
            );
        }
        const events = [];
        const error = await new Promise((resolve) =>
            new k8s.Watch(config).watch(
                `/api/v1/namespaces/${namespace}/configmaps`,
                { resourceVersion: metadata.resourceVersion, timeoutSeconds: 5 },
                (type, object) => events.push([type, object.code]),
                resolve,
            ),
        );
        // As the server says it: an answer of its own, or an event.
        assert.ok(error?.statusCode === 410 || events[0]?.join() === 'ERROR,410', `${error} ${events}`);
    });
});

describe('an informer', () => {
    let informer;
    let stopped = false;
    const seen = [];

    before(async () => {
        await custom.createNamespacedCustomObject({ ...at, body: widget('before', { color: 'red' }) });
        informer = k8s.makeInformer(config, `/apis/${group}/v1/namespaces/${namespace}/widgets`, () =>
            custom.listNamespacedCustomObject(at),
        );
        informer.on('add', (object) => seen.push(`add ${object.metadata.name}`));
        informer.on('update', (object) => seen.push(`update ${object.metadata.name} ${object.spec.color}`));
        informer.on('delete', (object) => seen.push(`delete ${object.metadata.name}`));
        // As the client's own examples do; stopping it may end in an error, too.
        informer.on('error', () => stopped || setTimeout(() => informer.start(), 100));
        await informer.start();
    });

    test('knows what was there and what comes', async () => {
        await custom.createNamespacedCustomObject({ ...at, body: widget('after', { color: 'red' }) });
        await eventually(() => seen.includes('add after'), 'the new one is told');
        await custom.patchNamespacedCustomObject(
            { ...at, name: 'after', body: { spec: { color: 'green' } } },
            patched(k8s.PatchStrategy.MergePatch),
        );
        await eventually(() => seen.includes('update after green'), 'the change is told');
        await custom.deleteNamespacedCustomObject({ ...at, name: 'before' });
        await eventually(() => seen.includes('delete before'), 'the end is told');
        assert.deepEqual(seen, ['add before', 'add after', 'update after green', 'delete before']);
        const list = await custom.listNamespacedCustomObject(at);
        assert.deepEqual(informer.list(namespace), list.items);
        stopped = true;
        await informer.stop();
    });
});

test('what the server says of itself', async () => {
    const version = await config.makeApiClient(k8s.VersionApi).getCode();
    assert.equal(version.major, '1');
    const groups = await config.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.groups.some((found) => found.name === group));
    const health = new k8s.Health(config);
    assert.equal(await health.readyz({}), true);
});
