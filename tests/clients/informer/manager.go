package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	managed  = 30
	managing = "example.com/managed"
)

func widget() *unstructured.Unstructured {
	widget := &unstructured.Unstructured{}
	widget.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: "Widget"})
	widget.SetNamespace(namespace)
	return widget
}

// A reconciler keeps a ConfigMap for each managed widget, and its status.
type reconciler struct{ client client.Client }

func (r *reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	found := widget()
	if err := r.client.Get(ctx, request.NamespacedName, found); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if found.GetLabels()["managed"] == "" {
		return reconcile.Result{}, nil
	}
	if found.GetDeletionTimestamp() != nil {
		if controllerutil.RemoveFinalizer(found, managing) {
			return reconcile.Result{}, client.IgnoreNotFound(r.client.Update(ctx, found))
		}
		return reconcile.Result{}, nil
	}
	if controllerutil.AddFinalizer(found, managing) {
		return reconcile.Result{}, r.client.Update(ctx, found)
	}
	second, _, _ := unstructured.NestedInt64(found.Object, "spec", "second")
	child := &corev1.ConfigMap{}
	child.Name, child.Namespace = found.GetName(), found.GetNamespace()
	_, err := controllerutil.CreateOrUpdate(ctx, r.client, child, func() error {
		child.Data = map[string]string{"second": fmt.Sprint(second)}
		return controllerutil.SetControllerReference(found, child, r.client.Scheme())
	})
	if err != nil {
		return reconcile.Result{}, err
	}
	before := found.DeepCopy()
	status := map[string]any{"second": second, "observedGeneration": found.GetGeneration()}
	if err := unstructured.SetNestedMap(found.Object, status, "status"); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, r.client.Status().Patch(ctx, found, client.MergeFrom(before))
}

// runManager has a manager with leader election manage widgets, from their making to their end.
func runManager(ctx context.Context, config *rest.Config, _ []string) error {
	log.SetLogger(logr.Discard())
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m, err := manager.New(config, manager.Options{
		Metrics:                 server.Options{BindAddress: "0"},
		HealthProbeBindAddress:  "0",
		LeaderElection:          true,
		LeaderElectionID:        "managed",
		LeaderElectionNamespace: namespace,
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{namespace: {}}},
	})
	if err != nil {
		return err
	}
	r := &reconciler{client: m.GetClient()}
	if err := builder.ControllerManagedBy(m).For(widget()).Owns(&corev1.ConfigMap{}).Complete(r); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()

	direct, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	for number := range managed {
		made := widget()
		made.SetName(fmt.Sprintf("managed-%02d", number))
		made.SetLabels(map[string]string{"managed": "yes"})
		made.Object["spec"] = map[string]any{"second": int64(number)}
		if err := direct.Create(ctx, made); err != nil {
			return err
		}
	}
	list := func() ([]unstructured.Unstructured, error) {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(widget().GroupVersionKind())
		err := direct.List(ctx, list, client.InNamespace(namespace), client.MatchingLabels{"managed": "yes"})
		return list.Items, err
	}
	if err := eventually(ctx, func() error {
		all, err := list()
		for i := range all {
			if err == nil {
				err = settled(&all[i])
			}
		}
		if err == nil && len(all) != managed {
			err = fmt.Errorf("there are %d widgets", len(all))
		}
		return err
	}); err != nil {
		return err
	}
	// A child that someone removes comes back.
	child := &corev1.ConfigMap{}
	key := client.ObjectKey{Namespace: namespace, Name: "managed-07"}
	if err := direct.Get(ctx, key, child); err != nil {
		return err
	}
	uid := child.UID
	if err := direct.Delete(ctx, child); err != nil {
		return err
	}
	if err := eventually(ctx, func() error {
		again := &corev1.ConfigMap{}
		err := direct.Get(ctx, key, again)
		if err == nil && (again.UID == uid || again.Data["second"] != "7") {
			err = fmt.Errorf("the child is %v", again)
		}
		return err
	}); err != nil {
		return err
	}
	// The end: finalizers are taken off, and children go with their owners.
	if err := direct.DeleteAllOf(ctx, widget(), client.InNamespace(namespace), client.MatchingLabels{"managed": "yes"}); err != nil {
		return err
	}
	if err := eventually(ctx, func() error {
		all, err := list()
		if err == nil && len(all) != 0 {
			err = fmt.Errorf("%d widgets are left", len(all))
		}
		children := &corev1.ConfigMapList{}
		if err == nil {
			err = direct.List(ctx, children, client.InNamespace(namespace))
		}
		for i := range children.Items {
			if len(children.Items[i].OwnerReferences) > 0 {
				return fmt.Errorf("the child %s is left", children.Items[i].Name)
			}
		}
		return err
	}); err != nil {
		return err
	}
	stop()
	if err := <-ended; err != nil {
		return err
	}
	fmt.Println("managed", managed)
	return nil
}
