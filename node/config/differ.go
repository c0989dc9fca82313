package config

import (
	"reflect"
	"strings"
)

// Live are the settings that a running node takes up anew; all others take a restart.
// Those of api.tls name files, which are read again even when their names are the same.
var live = map[string]bool{"log.level": true, "api.applications": true, "api.tls_cert": true, "api.tls_key": true}

// Differ names the settings in which two configurations differ, as the file writes them,
// one level deep: those that a running node takes up, and those that take a restart.
func Differ(was, now *Config) (changed, restart []string) {
	w, n := reflect.ValueOf(was).Elem(), reflect.ValueOf(now).Elem()
	for i := range w.NumField() {
		name, ok := keyOf(w.Type().Field(i))
		if !ok || reflect.DeepEqual(w.Field(i).Interface(), n.Field(i).Interface()) {
			continue
		}
		names := []string{name}
		if w.Field(i).Kind() == reflect.Struct {
			names = differing(name, w.Field(i), n.Field(i))
		}
		for _, name := range names {
			if live[name] {
				changed = append(changed, name)
			} else {
				restart = append(restart, name)
			}
		}
	}
	return changed, restart
}

func differing(prefix string, w, n reflect.Value) (names []string) {
	for i := range w.NumField() {
		if name, ok := keyOf(w.Type().Field(i)); ok && !reflect.DeepEqual(w.Field(i).Interface(), n.Field(i).Interface()) {
			names = append(names, prefix+"."+name)
		}
	}
	return names
}

func keyOf(f reflect.StructField) (string, bool) {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name, f.IsExported() && name != "" && name != "-"
}
