// Command gen makes the Go code of the published API from its .proto files. It
// needs nothing but Go: the compiler and both plugins are pinned in this
// module's go.mod.
//
// It also holds the contract to its own law: everything published has a comment,
// and enums begin with an UNSPECIFIED zero.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/pluginpb"
)

// module is the Go module that the generated code belongs to.
const module = "gemel"

func main() {
	root := flag.String("root", ".", "directory of the main module")
	check := flag.Bool("check", false, "write nothing; fail if what is there is not current")
	flag.Parse()
	if err := run(context.Background(), *root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root string, check bool) error {
	api := filepath.Join(root, "api")
	names, err := protoFiles(api)
	if err != nil {
		return fmt.Errorf("looking for .proto files: %w", err)
	}
	c := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{api}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := c.Compile(ctx, names...)
	if err != nil {
		return fmt.Errorf("compiling: %w", err)
	}
	var wrong []error
	for _, f := range files {
		wrong = append(wrong, law(f)...)
	}
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	out := map[string]string{}
	for _, p := range []struct{ tool, parameter string }{
		{"google.golang.org/protobuf/cmd/protoc-gen-go", "module=" + module},
		{"connectrpc.com/connect/cmd/protoc-gen-connect-go", "module=" + module + ",simple"},
	} {
		if err := plugin(ctx, request(names, files, p.parameter), p.tool, out); err != nil {
			return err
		}
	}
	if check {
		return compare(root, out)
	}
	for name, text := range out {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// protoFiles returns the .proto files below dir, by their import paths.
func protoFiles(dir string) ([]string, error) {
	var names []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".proto" {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		names = append(names, filepath.ToSlash(rel))
		return err
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("none below %s", dir)
	}
	return names, err
}

// request gathers the files and all that they import, imports first.
func request(names []string, files linker.Files, parameter string) *pluginpb.CodeGeneratorRequest {
	req := &pluginpb.CodeGeneratorRequest{FileToGenerate: names, Parameter: proto.String(parameter)}
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		req.ProtoFile = append(req.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, f := range files {
		add(f)
	}
	return req
}

// plugin runs one pinned plugin and adds what it made to out.
func plugin(ctx context.Context, req *pluginpb.CodeGeneratorRequest, tool string, out map[string]string) error {
	in, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encoding the request: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "tool", tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	b, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("running %s: %w", tool, err)
	}
	var res pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(b, &res); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", tool, err)
	}
	if res.Error != nil {
		return fmt.Errorf("%s: %s", tool, res.GetError())
	}
	for _, f := range res.File {
		out[f.GetName()] = f.GetContent()
	}
	return nil
}

// compare says which generated files are missing, old, or no longer made.
func compare(root string, out map[string]string) error {
	var wrong []string
	for name, text := range out {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil || string(b) != text {
			wrong = append(wrong, name)
		}
	}
	err := filepath.WalkDir(filepath.Join(root, "api"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !generated(path) {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if _, ok := out[filepath.ToSlash(rel)]; !ok {
			wrong = append(wrong, rel+" (no longer made)")
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		sort.Strings(wrong)
		return fmt.Errorf("not current: %s; run api/generate.sh", strings.Join(wrong, ", "))
	}
	return nil
}

func generated(path string) bool {
	return strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".connect.go")
}

// law says what of f has no comment, and which enums do not begin well.
func law(f protoreflect.FileDescriptor) []error {
	var wrong []error
	locations := f.SourceLocations()
	var walk func(d protoreflect.Descriptor)
	comment := func(d protoreflect.Descriptor) {
		if strings.TrimSpace(locations.ByDescriptor(d).LeadingComments) == "" {
			wrong = append(wrong, fmt.Errorf("%s: %s has no comment", f.Path(), d.FullName()))
		}
	}
	walk = func(d protoreflect.Descriptor) {
		comment(d)
		switch d := d.(type) {
		case protoreflect.MessageDescriptor:
			for i := range d.Fields().Len() {
				comment(d.Fields().Get(i))
			}
			for i := range d.Messages().Len() {
				walk(d.Messages().Get(i))
			}
			for i := range d.Enums().Len() {
				walk(d.Enums().Get(i))
			}
		case protoreflect.EnumDescriptor:
			for i := range d.Values().Len() {
				comment(d.Values().Get(i))
			}
			if zero := d.Values().ByNumber(0); zero == nil || !strings.HasSuffix(string(zero.Name()), "_UNSPECIFIED") {
				wrong = append(wrong, fmt.Errorf("%s: %s has no UNSPECIFIED zero", f.Path(), d.FullName()))
			}
		case protoreflect.ServiceDescriptor:
			for i := range d.Methods().Len() {
				comment(d.Methods().Get(i))
			}
		}
	}
	for i := range f.Messages().Len() {
		walk(f.Messages().Get(i))
	}
	for i := range f.Enums().Len() {
		walk(f.Enums().Get(i))
	}
	for i := range f.Services().Len() {
		walk(f.Services().Get(i))
	}
	return wrong
}
