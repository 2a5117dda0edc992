package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	typedcore "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func scheme() *runtime.Scheme { return clientscheme.Scheme }

// recordSink writes events, as record.EventSinkImpl of client-go does.
type recordSink struct{ events typedcore.EventInterface }

func (s *recordSink) Create(event *corev1.Event) (*corev1.Event, error) {
	return s.events.CreateWithEventNamespace(event)
}
func (s *recordSink) Update(event *corev1.Event) (*corev1.Event, error) {
	return s.events.UpdateWithEventNamespace(event)
}
func (s *recordSink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.events.PatchWithEventNamespace(event, data)
}

// elect has two candidates for one Lease: one leads, and the other follows when it steps back.
func elect(ctx context.Context, config *rest.Config, _ []string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	var leading atomic.Int32
	run := func(identity string) (context.CancelFunc, <-chan struct{}, <-chan struct{}) {
		candidate, stop := context.WithCancel(ctx)
		began, ended := make(chan struct{}), make(chan struct{})
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "elected", Namespace: namespace},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		}
		go leaderelection.RunOrDie(candidate, leaderelection.LeaderElectionConfig{
			Lock: lock, ReleaseOnCancel: true,
			LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) { leading.Add(1); close(began) },
				OnStoppedLeading: func() {
					select {
					case <-began:
						leading.Add(-1)
					default:
					}
					close(ended)
				},
			},
		})
		return stop, began, ended
	}
	wait := func(what string, happened <-chan struct{}) error {
		select {
		case <-happened:
			return nil
		case <-time.After(30 * time.Second):
			return errors.New(what)
		}
	}
	stopFirst, firstBegan, firstEnded := run("first")
	defer stopFirst()
	if err := wait("the first never led", firstBegan); err != nil {
		return err
	}
	stopSecond, secondBegan, secondEnded := run("second")
	defer stopSecond()
	leases := client.CoordinationV1().Leases(namespace)
	before, err := leases.Get(ctx, "elected", metav1.GetOptions{})
	if err != nil {
		return err
	}
	// It renews, and the other stays behind.
	if err := eventually(ctx, func() error {
		now, err := leases.Get(ctx, "elected", metav1.GetOptions{})
		if err == nil && !now.Spec.RenewTime.After(before.Spec.RenewTime.Time) {
			err = errors.New("the lease is not renewed")
		}
		return err
	}); err != nil {
		return err
	}
	if leading.Load() != 1 {
		return fmt.Errorf("%d lead", leading.Load())
	}
	stopFirst()
	if err := wait("the first never stepped back", firstEnded); err != nil {
		return err
	}
	if err := wait("the second never followed", secondBegan); err != nil {
		return err
	}
	lease, err := leases.Get(ctx, "elected", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if *lease.Spec.HolderIdentity != "second" || *lease.Spec.LeaseTransitions < 1 {
		return fmt.Errorf("the lease says %v", lease.Spec)
	}
	stopSecond()
	if err := wait("the second never stepped back", secondEnded); err != nil {
		return err
	}
	fmt.Println("elected")
	return nil
}
