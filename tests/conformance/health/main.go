// Reads a Kubernetes object as JSON and prints its health as others see it:
//
//	health                 by the rules of kstatus, which kubectl apply --prune, Flux and others wait by
//	health SCRIPT.lua      by a health script of Argo CD, in the interpreter that Argo CD runs it in
package main

import (
	"fmt"
	"io"
	"os"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

func main() {
	object := &unstructured.Unstructured{}
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = object.UnmarshalJSON(text)
	}
	said := ""
	if err == nil && len(os.Args) > 1 {
		said, err = argo(object, os.Args[1])
	} else if err == nil {
		said, err = kstatus(object)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(said)
}

func kstatus(object *unstructured.Unstructured) (string, error) {
	result, err := status.Compute(object)
	if err != nil {
		return "", err
	}
	return string(result.Status), nil
}

// Argo CD opens no library that reaches files or the system; the script finds the object as obj and returns a table
// with status and message (docs/operator-manual/health.md of Argo CD).
func argo(object *unstructured.Unstructured, path string) (string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, open := range []lua.LGFunction{lua.OpenBase, lua.OpenTable, lua.OpenString, lua.OpenMath} {
		state.Push(state.NewFunction(open))
		state.Call(0, 0)
	}
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoFile(path); err != nil {
		return "", err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	return fmt.Sprintf("%s: %s", health.RawGetString("status"), health.RawGetString("message")), nil
}

func value(state *lua.LState, of any) lua.LValue {
	switch of := of.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, item := range of {
			table.RawSetString(key, value(state, item))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, item := range of {
			table.Append(value(state, item))
		}
		return table
	case string:
		return lua.LString(of)
	case bool:
		return lua.LBool(of)
	case int64:
		return lua.LNumber(of)
	case float64:
		return lua.LNumber(of)
	}
	return lua.LNil
}
