// Command gen makes the Go code of the protocol's .proto files anew: what protoc and protoc-gen-go would make, from Go
// modules whose versions go.mod pins, so that everyone's output is the same and nothing needs to be installed.
//
// It owns proto/**/*.pb.go, writes nothing else, and is part of no program.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	gengo "google.golang.org/protobuf/cmd/protoc-gen-go/internal_gengo"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

//go:generate go run .

// root is where imports are looked up; `go generate` and `go test` run in this folder.
const root = ".."

// sources are the files to generate code for, relative to root.
func sources() []string { return []string{"bhome/v1/bhome.proto"} }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := generate(context.Background(), root, sources())
	if err != nil {
		return err
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate compiles the sources, which it finds below dir, and returns their code by file name relative to dir.
func generate(ctx context.Context, dir string, sources []string) (map[string][]byte, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{dir}}),
		SourceInfoMode: protocompile.SourceInfoStandard, // the comments
	}
	compiled, err := compiler.Compile(ctx, sources...)
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: sources, Parameter: proto.String("paths=source_relative")}
	seen := map[string]bool{}
	for _, file := range compiled {
		request.ProtoFile = withImports(request.ProtoFile, seen, file)
	}
	plugin, err := protogen.Options{}.New(request)
	if err != nil {
		return nil, fmt.Errorf("generate: %w", err)
	}
	for _, file := range plugin.Files {
		if file.Generate {
			gengo.GenerateFile(plugin, file)
		}
	}
	response := plugin.Response()
	if response.Error != nil {
		return nil, fmt.Errorf("generate: %s", response.GetError())
	}
	out := map[string][]byte{}
	for _, file := range response.File {
		out[file.GetName()] = []byte(file.GetContent())
	}
	return out, nil
}

// withImports appends file to list, behind everything that it imports.
func withImports(list []*descriptorpb.FileDescriptorProto, seen map[string]bool, file protoreflect.FileDescriptor) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		list = withImports(list, seen, file.Imports().Get(i).FileDescriptor)
	}
	return append(list, protodesc.ToFileDescriptorProto(file))
}
