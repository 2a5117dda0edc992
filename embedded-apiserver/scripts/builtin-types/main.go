// Writes src/builtin/types.txt, the Go types of the built-in kinds, to its standard output:
//
//	go run . >../../src/builtin/types.txt
package main

import (
	"fmt"
	"path"
	"reflect"
	"sort"
	"strings"

	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	events "k8s.io/api/events/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

var roots = []any{
	core.Namespace{}, core.Secret{}, core.ConfigMap{}, core.ServiceAccount{}, core.Event{}, core.Node{}, core.Pod{},
	core.Binding{}, events.Event{}, coordination.Lease{}, policy.PodDisruptionBudget{}, policy.Eviction{}, apps.DaemonSet{},
	rbac.Role{}, rbac.RoleBinding{}, rbac.ClusterRole{}, rbac.ClusterRoleBinding{},
	authorization.SelfSubjectAccessReview{}, authorization.SubjectAccessReview{},
	authorization.LocalSubjectAccessReview{}, authorization.SelfSubjectRulesReview{},
	authentication.SelfSubjectReview{}, authentication.TokenReview{}, authentication.TokenRequest{},
	apiextensions.CustomResourceDefinition{},
}

// Types that read and write their JSON themselves.
var own = map[string]bool{
	"meta.Time": true, "meta.MicroTime": true, "meta.FieldsV1": true, "resource.Quantity": true,
	"intstr.IntOrString": true, "runtime.RawExtension": true, "apiextensions.JSON": true,
	"apiextensions.JSONSchemaPropsOrArray": true, "apiextensions.JSONSchemaPropsOrBool": true,
	"apiextensions.JSONSchemaPropsOrStringArray": true,
}

// name gives a package's types the API group before their name, as in messages.txt.
func name(t reflect.Type) string {
	if t.PkgPath() == "" {
		return t.String()
	}
	folder := t.PkgPath()
	if path.Base(folder) == "v1" {
		folder = path.Dir(folder)
	}
	return path.Base(folder) + "." + t.Name()
}

var found = map[string]reflect.Type{}

func expression(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + expression(t.Elem())
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "[]byte"
		}
		return named(t, "[]"+expression(t.Elem()))
	case reflect.Map:
		return named(t, "map["+t.Key().Kind().String()+"]"+expression(t.Elem()))
	case reflect.Struct:
		if !own[name(t)] {
			visit(t)
		}
		return name(t)
	}
	return named(t, t.Kind().String())
}

func named(t reflect.Type, text string) string {
	if t.PkgPath() != "" {
		return name(t) + "=" + text
	}
	return text
}

func visit(t reflect.Type) {
	if _, known := found[name(t)]; known {
		return
	}
	found[name(t)] = t
	fields(t)
}

func fields(t reflect.Type) []string {
	var lines []string
	for i := range t.NumField() {
		field := t.Field(i)
		parts := strings.Split(field.Tag.Get("json"), ",")
		if field.Anonymous && parts[0] == "" {
			inner := field.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			lines = append(lines, fields(inner)...)
			continue
		}
		if parts[0] == "-" || parts[0] == "" {
			continue
		}
		line := " " + parts[0] + " " + expression(field.Type)
		for _, option := range parts[1:] {
			if option == "omitempty" || option == "omitzero" {
				line += " " + option
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func main() {
	for _, root := range roots {
		visit(reflect.TypeOf(root))
	}
	names := []string{}
	for name := range found {
		names = append(names, name)
	}
	sort.Strings(names)
	fmt.Println("# The Go types of the built-in kinds, from k8s.io/api, apimachinery and apiextensions-apiserver v0.34.4 (Apache-2.0), made by")
	fmt.Println("# scripts/builtin-types. Types, then fields: JSON name, type (a named one with its name before `=`), and whether empty or")
	fmt.Println("# zero values are left out.")
	for _, name := range names {
		fmt.Println(name)
		for _, line := range fields(found[name]) {
			fmt.Println(line)
		}
	}
}
