package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/yaml"
)

// How clients say in which form they speak: the body's, and those they accept.
var forms = []struct{ name, content, accept string }{
	{"json", "application/json", "application/json"},
	{"protobuf", "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"},
	// What in-tree components set: a server without CBOR answers with what else is accepted.
	{"cbor", "application/json", "application/cbor;q=0.9, application/vnd.kubernetes.protobuf;q=0.5, application/json;q=0.1"},
}

// typed drives the typed clientset in each form.
func typed(ctx context.Context, config *rest.Config, _ []string) error {
	for _, form := range forms {
		config := rest.CopyConfig(config)
		config.ContentType, config.AcceptContentTypes = form.content, form.accept
		if err := inOneForm(ctx, config, form.name); err != nil {
			return fmt.Errorf("in %s: %w", form.name, err)
		}
		fmt.Println("typed", form.name)
	}
	return nil
}

func inOneForm(ctx context.Context, config *rest.Config, name string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func(context.Context, kubernetes.Interface, string) error
	}{
		{"objects", objects},
		{"a stale write", stale},
		{"apply", apply},
		{"pages", pages},
		{"a pod and its eviction", pods},
		{"a typed informer", typedInformer},
		{"an event", events},
		{"discovery", discovers},
	}
	for _, step := range steps {
		if err := step.do(ctx, client, name); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return partial(ctx, config, name)
}

// objects of several kinds go there and come back as they were.
func objects(ctx context.Context, client kubernetes.Interface, name string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	made, err := maps.Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"form": name}},
		Data:       map[string]string{"text": "ä\n"},
		BinaryData: map[string][]byte{"bytes": {0, 255, 7}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	got, err := maps.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if !equality.Semantic.DeepEqual(made, got) || string(got.BinaryData["bytes"]) != "\x00\xff\x07" {
		return fmt.Errorf("%v was made, %v is there", made, got)
	}
	now := metav1.NewMicroTime(time.Date(2026, 1, 2, 3, 4, 5, 678000, time.UTC))
	holder, seconds := "me", int32(15)
	lease, err := client.CoordinationV1().Leases(namespace).Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &now},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if !lease.Spec.RenewTime.Equal(&now) || *lease.Spec.HolderIdentity != holder {
		return fmt.Errorf("the lease came back as %v", lease.Spec)
	}
	patched, err := client.CoordinationV1().Leases(namespace).Patch(ctx, name, types.StrategicMergePatchType,
		[]byte(`{"spec":{"leaseTransitions":3}}`), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	if *patched.Spec.LeaseTransitions != 3 || patched.Spec.HolderIdentity == nil {
		return fmt.Errorf("the lease was patched to %v", patched.Spec)
	}
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("a name that is taken gives %v", err)
	}
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "Not A Name"}}, metav1.CreateOptions{})
	var status apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &status) || status.Status().Details.Causes[0].Field != "metadata.name" {
		return fmt.Errorf("a name that is none gives %v", err)
	}
	if _, err = maps.Get(ctx, "none", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return fmt.Errorf("what is not there gives %v", err)
	}
	return nil
}

// stale writes are refused, and the usual loop around them ends.
func stale(ctx context.Context, client kubernetes.Interface, name string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	old, err := maps.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	fresh := old.DeepCopy()
	fresh.Data["count"] = "0"
	if _, err := maps.Update(ctx, fresh, metav1.UpdateOptions{}); err != nil {
		return err
	}
	old.Data["count"] = "stale"
	if _, err := maps.Update(ctx, old, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		return fmt.Errorf("a stale write gives %v", err)
	}
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := maps.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Data["count"] = "1"
		_, err = maps.Update(ctx, current, metav1.UpdateOptions{})
		return err
	})
}

// apply by two managers: shared, in conflict, by force.
func apply(ctx context.Context, client kubernetes.Interface, name string) error {
	maps := client.CoreV1().ConfigMaps(namespace)
	of := func(value string) *applycore.ConfigMapApplyConfiguration {
		return applycore.ConfigMap("applied-"+name, namespace).WithData(map[string]string{"a": value})
	}
	if _, err := maps.Apply(ctx, of("1"), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	if _, err := maps.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two"}); !apierrors.IsConflict(err) {
		return fmt.Errorf("another's field gives %v", err)
	}
	forced, err := maps.Apply(ctx, of("2"), metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		return err
	}
	if forced.Data["a"] != "2" || len(forced.ManagedFields) != 1 || forced.ManagedFields[0].Manager != "two" {
		return fmt.Errorf("forced, it is %v", forced)
	}
	extracted, err := applycore.ExtractConfigMap(forced, "two")
	if err != nil || extracted.Data["a"] != "2" {
		return fmt.Errorf("extracted, it is %v, %v", extracted, err)
	}
	return nil
}

// pages of a list, by client-go's pager.
func pages(ctx context.Context, client kubernetes.Interface, name string) error {
	const many = 45
	selector := labels.Set{"pages": name}.String()
	secrets := client.CoreV1().Secrets(namespace)
	for number := range many {
		secret := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("page-%s-%02d", name, number), Labels: map[string]string{"pages": name}},
			StringData: map[string]string{"number": fmt.Sprint(number)},
		}
		if _, err := secrets.Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	asked, seen := 0, map[string]string{}
	paging := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		asked++
		return secrets.List(ctx, options)
	})
	paging.PageSize = 10
	err := paging.EachListItem(ctx, metav1.ListOptions{LabelSelector: selector}, func(object runtime.Object) error {
		secret := object.(*corev1.Secret)
		seen[secret.Name] = string(secret.Data["number"])
		return nil
	})
	if err != nil {
		return err
	}
	if len(seen) != many || asked != 5 || seen["page-"+name+"-07"] != "7" {
		return fmt.Errorf("%d secrets in %d pages", len(seen), asked)
	}
	if err := secrets.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: selector}); err != nil {
		return err
	}
	rest, err := secrets.List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil || len(rest.Items) != 0 {
		return fmt.Errorf("%d are left, %v", len(rest.Items), err)
	}
	return nil
}

// pods have a status of their own, and are evicted unless a budget says no.
func pods(ctx context.Context, client kubernetes.Interface, name string) error {
	pods := client.CoreV1().Pods(namespace)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example.com/a:1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodPending || pod.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		return fmt.Errorf("it begins as %v", pod)
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Spec.Containers[0].Image = "example.com/not:by-status"
	if pod, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if pod.Status.Phase != corev1.PodRunning || pod.Spec.Containers[0].Image != "example.com/a:1" {
		return fmt.Errorf("its status was written as %v", pod)
	}
	zero := int64(0)
	return pods.Delete(ctx, name, metav1.DeleteOptions{
		GracePeriodSeconds: &zero,
		Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
	})
}

// typedInformer sees changes in the form that was asked for.
func typedInformer(ctx context.Context, client kubernetes.Interface, name string) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	informer := factory.Core().V1().ConfigMaps()
	seen := make(chan string, 100)
	_, err := informer.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { seen <- "added " + accessor(object.(runtime.Object)).GetName() },
		UpdateFunc: func(_, object any) {
			seen <- "updated " + accessor(object.(runtime.Object)).GetName()
		},
		DeleteFunc: func(object any) {
			if _, unknown := object.(cache.DeletedFinalStateUnknown); !unknown {
				seen <- "deleted " + accessor(object.(runtime.Object)).GetName()
			}
		},
	})
	if err != nil {
		return err
	}
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.Informer().HasSynced) {
		return errors.New("it never synced")
	}
	if _, err := informer.Lister().ConfigMaps(namespace).Get(name); err != nil {
		return err
	}
	maps := client.CoreV1().ConfigMaps(namespace)
	watched := "watched-" + name
	made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: watched}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data = map[string]string{"a": "b"}
	if _, err := maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	if err := maps.Delete(ctx, watched, metav1.DeleteOptions{}); err != nil {
		return err
	}
	for _, wanted := range []string{"added " + watched, "updated " + watched, "deleted " + watched} {
		for found := ""; found != wanted; {
			select {
			case found = <-seen:
			case <-time.After(20 * time.Second):
				return fmt.Errorf("%q was never told", wanted)
			}
		}
	}
	return nil
}

// events by the recorder that controllers use; the same again counts up.
func events(ctx context.Context, client kubernetes.Interface, name string) error {
	about, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&recordSink{client.CoreV1().Events(namespace)})
	recorder := broadcaster.NewRecorder(scheme(), corev1.EventSource{Component: "informer-" + name})
	for range 3 {
		recorder.Event(about, corev1.EventTypeNormal, "Seen", "it was seen")
	}
	return eventually(ctx, func() error {
		list, err := client.CoreV1().Events(namespace).Search(scheme(), about)
		if err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Count != 3 {
			return fmt.Errorf("the events are %v", list.Items)
		}
		return nil
	})
}

// discovers what the generic controllers ask for.
func discovers(_ context.Context, client kubernetes.Interface, _ string) error {
	_, resources, err := client.Discovery().ServerGroupsAndResources()
	if err != nil {
		return err
	}
	kinds := map[string]bool{}
	for _, list := range resources {
		for _, resource := range list.APIResources {
			kinds[list.GroupVersion+" "+resource.Name] = true
		}
	}
	for _, wanted := range []string{"v1 configmaps", "v1 pods/eviction", "apps/v1 daemonsets", group + "/v1 widgets/status"} {
		if !kinds[wanted] {
			return fmt.Errorf("%s is not told", wanted)
		}
	}
	paths, err := client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	if paths["apis/"+group+"/v1"] == nil {
		return errors.New("OpenAPI v3 has no widgets")
	}
	if _, err = client.Discovery().ServerVersion(); err != nil {
		return err
	}
	return document(client)
}

// document in protobuf is the one in JSON, as gnostic reads it.
func document(client kubernetes.Interface) error {
	found, err := client.Discovery().OpenAPISchema()
	if err != nil {
		return err
	}
	plain, err := client.Discovery().RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", "application/json").Do(context.Background()).Raw()
	if err != nil {
		return err
	}
	wanted, err := openapiv2.ParseDocument(plain)
	if err != nil {
		return err
	}
	if len(found.GetDefinitions().GetAdditionalProperties()) < 100 {
		return fmt.Errorf("OpenAPI v2 has only %d definitions", len(found.GetDefinitions().GetAdditionalProperties()))
	}
	for _, each := range []proto.Message{found, wanted} {
		if err := plainValues(each); err != nil {
			return err
		}
	}
	if proto.Equal(found, wanted) {
		return nil
	}
	differ := func(name string, found, wanted proto.Message) error {
		if proto.Equal(found, wanted) {
			return nil
		}
		return fmt.Errorf("%s in OpenAPI v2 is %v in protobuf, and %v in JSON", name, found, wanted)
	}
	for at, each := range wanted.GetDefinitions().GetAdditionalProperties() {
		if err := differ(each.GetName(), found.GetDefinitions().GetAdditionalProperties()[at], each); err != nil {
			return err
		}
	}
	for at, each := range wanted.GetPaths().GetPath() {
		if err := differ(each.GetName(), found.GetPaths().GetPath()[at], each); err != nil {
			return err
		}
	}
	return errors.New("OpenAPI v2 differs in protobuf and in JSON")
}

// plainValues writes what stands in the document as YAML in one way: as JSON.
func plainValues(document proto.Message) error {
	return protorange.Range(document.ProtoReflect(), func(at protopath.Values) error {
		message, is := at.Index(-1).Value.Interface().(protoreflect.Message)
		if !is {
			return nil
		}
		value, is := message.Interface().(*openapiv2.Any)
		if !is {
			return nil
		}
		plain, err := yaml.YAMLToJSON([]byte(value.Yaml))
		value.Yaml = string(plain)
		return err
	})
}

// partial objects: only metadata, as the garbage collector watches.
func partial(ctx context.Context, config *rest.Config, name string) error {
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	maps := client.Resource(corev1.SchemeGroupVersion.WithResource("configmaps")).Namespace(namespace)
	list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "form=" + name})
	if err != nil {
		return err
	}
	if len(list.Items) != 1 || list.Items[0].Kind != "PartialObjectMetadata" || list.Items[0].Name != name {
		return fmt.Errorf("the partial list is %v", list)
	}
	watcher, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "form=" + name})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	if err := maps.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	select {
	case event := <-watcher.ResultChan():
		object, is := event.Object.(*metav1.PartialObjectMetadata)
		if event.Type != watch.Deleted || !is || object.Name != name {
			return fmt.Errorf("the partial event is %v", event)
		}
	case <-time.After(20 * time.Second):
		return errors.New("no event of a partial object")
	}
	return nil
}
