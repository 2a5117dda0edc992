package main

import (
	"fmt"
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A journal holds what the server acknowledged, and what was wrong.
type journal struct {
	mutex sync.Mutex
	// The revisions of acknowledged creations and updates.
	written map[uint64]string
	// Requests whose answer was lost: they may have been carried out or not.
	lost     int
	problems []string
	counts   map[string]int
}

func newJournal() *journal {
	return &journal{written: map[uint64]string{}, counts: map[string]int{}}
}

func (j *journal) problem(format string, arguments ...any) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	if len(j.problems) < 20 {
		j.problems = append(j.problems, fmt.Sprintf(format, arguments...))
	}
}

func (j *journal) count(what string) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.counts[what]++
}

func (j *journal) lose() {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.lost++
}

// acknowledge notes a write that was answered with the object as it is now.
func (j *journal) acknowledge(object metav1.Object) uint64 {
	revision := revisionOf(object)
	// The update that removes the last finalizer ends the object: its revision is the deletion's.
	if object.GetDeletionTimestamp() != nil {
		return revision
	}
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.written[revision] = object.GetNamespace() + "/" + object.GetName()
	return revision
}

func revisionOf(object metav1.Object) uint64 {
	revision, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	if err != nil {
		panic(fmt.Sprintf("the revision %q is no number", object.GetResourceVersion()))
	}
	return revision
}

func accessor(object runtime.Object) metav1.Object {
	accessor, err := meta.Accessor(object)
	if err != nil {
		panic(err)
	}
	return accessor
}
