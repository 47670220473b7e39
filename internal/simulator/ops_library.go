package simulator

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
)

func libraryHandlers() map[string]handler {
	return map[string]handler{
		"libraryfiles.list": list(collection{name: "LibraryFiles"}, func(c *call) ([]libraryFile, error) {
			return snapshot(c.fleet, &c.fleet.library), nil
		}),
		"libraryfiles.create": uploadLibraryFile,
		"libraryfiles.delete": func(c *call) (reply, error) {
			fl := c.fleet
			fl.mu.Lock()
			defer fl.mu.Unlock()
			i := slices.IndexFunc(fl.library, func(f libraryFile) bool { return strings.EqualFold(f.FileName, c.id()) })
			if i < 0 {
				return reply{}, notFound("library file", c.id())
			}
			fl.library = slices.Concat(fl.library[:i], fl.library[i+1:])
			return reply{status: http.StatusNoContent}, nil
		},
	}
}

// maxLibraryFile is the documented size of a file: 20 MB.
const maxLibraryFile = 20 << 20

// maxFieldText bounds the other fields of an upload.
const maxFieldText = 64 << 10

// uploadLibraryFile reads an upload part by part and keeps its hash, not its
// content. The page and its sample differ in the letter case of field names.
func uploadLibraryFile(c *call) (reply, error) {
	parts, err := c.r.MultipartReader()
	if err != nil {
		return reply{}, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: it is not multipart/form-data.")
	}
	up := libraryFile{CreationTime: at(c.now), LastUpdatedTime: at(c.now), CreatedBy: c.who.name()}
	override := false
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return reply{}, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: the form breaks off.")
		}
		name := strings.ToLower(part.FormName())
		if name == "file" {
			if p := up.read(part); p != nil {
				return reply{}, p
			}
			continue
		}
		text, err := io.ReadAll(io.LimitReader(part, maxFieldText))
		if err != nil {
			return reply{}, problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: the form breaks off.")
		}
		switch value := strings.TrimSpace(string(text)); name {
		case "description":
			up.Description = optional(value)
		case "parametersdescription":
			up.ParametersDescription, up.HasParameters = optional(value), value != ""
		case "hasparameters":
			up.HasParameters = strings.EqualFold(value, "true")
		case "overrideifexists":
			override = strings.EqualFold(value, "true")
		}
	}
	if up.FileName == "" {
		return reply{}, missing("File")
	}
	if p := c.fleet.addLibraryFile(&up, override); p != nil {
		return reply{}, p
	}
	return entity(c, "LibraryFiles", up)
}

// read takes name and hash of the uploaded file.
func (f *libraryFile) read(part *multipart.Part) *problem {
	f.FileName = part.FileName()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(part, maxLibraryFile+1))
	if err != nil {
		return problemf(http.StatusBadRequest, "InvalidRequestBody", "Request body is incorrect: the file breaks off.")
	}
	if n > maxLibraryFile {
		return invalidInput("Invalid input File: a library file has at most %d bytes.", maxLibraryFile)
	}
	f.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func (f *fleet) addLibraryFile(up *libraryFile, override bool) *problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.library, func(old libraryFile) bool { return strings.EqualFold(old.FileName, up.FileName) })
	if i >= 0 {
		if !override {
			return problemf(http.StatusBadRequest, "BadRequest", "File %s exists already; set OverrideIfExists to replace it.", up.FileName)
		}
		up.CreationTime = f.library[i].CreationTime
		f.library = slices.Clone(f.library)
		f.library[i] = *up
		return nil
	}
	if p := full(f.library); p != nil {
		return p
	}
	f.library = append(slices.Clip(f.library), *up)
	return nil
}
