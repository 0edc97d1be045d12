package definition

import (
	"encoding/json"
	"fmt"
)

// decodeRule reads the next schema. A keyword that is not known is an error: it
// would be published and not checked. It reads each byte once, since every command
// that meets an ashlar.yaml waits for it.
func decodeRule(d *json.Decoder) (*rule, error) {
	r := &rule{}
	start, err := d.Token()
	if err != nil {
		return nil, err
	}
	if whole, ok := start.(bool); ok {
		r.closed = !whole
		return r, nil
	}
	if start != json.Delim('{') {
		return nil, fmt.Errorf("a schema begins with %v", start)
	}
	for d.More() {
		word, err := d.Token()
		if err != nil {
			return nil, err
		}
		if err := r.decode(d, fmt.Sprint(word)); err != nil {
			return nil, fmt.Errorf("%v: %w", word, err)
		}
	}
	_, err = d.Token()
	return r, err
}

// decode reads the value of a keyword.
func (r *rule) decode(d *json.Decoder, word string) (err error) {
	switch word {
	case "$schema", "$id":
		_, err = d.Token()
	case "type":
		var v any
		err = d.Decode(&v)
		r.Type = texts(v)
	case "not":
		r.Not, err = decodeRule(d)
	case "propertyNames":
		r.Names, err = decodeRule(d)
	case "additionalProperties":
		r.Others, err = decodeRule(d)
	case "items":
		r.Items, err = decodeRule(d)
	case "properties":
		r.Properties, err = decodeProperties(d)
	case "$defs":
		r.Defs, err = decodeProperties(d)
	default:
		err = r.decodePlain(d, word)
	}
	return err
}

// decodePlain reads the value of a keyword that holds no schemas.
func (r *rule) decodePlain(d *json.Decoder, word string) (err error) {
	switch word {
	case "$ref":
		r.Ref, err = decodeText(d)
	case "title":
		r.Title, err = decodeText(d)
	case "description":
		r.Description, err = decodeText(d)
	case "pattern":
		r.Pattern, err = decodeText(d)
	case "enum":
		err = d.Decode(&r.Enum)
	case "minimum":
		err = d.Decode(&r.Minimum)
	case "exclusiveMinimum":
		err = d.Decode(&r.ExclusiveMin)
	case "maximum":
		err = d.Decode(&r.Maximum)
	case "minItems":
		err = d.Decode(&r.MinItems)
	case "uniqueItems":
		err = d.Decode(&r.UniqueItems)
	case "minProperties":
		err = d.Decode(&r.MinProperties)
	case "maxProperties":
		err = d.Decode(&r.MaxProperties)
	case "required":
		err = d.Decode(&r.Required)
	case "default":
		err = d.Decode(&r.Default)
	case "examples":
		err = d.Decode(&r.Examples)
	default:
		err = fmt.Errorf("the keyword is not known")
	}
	return err
}

func decodeText(d *json.Decoder) (string, error) {
	t, err := d.Token()
	text, _ := t.(string)
	return text, err
}

// texts gives a text, or a list of texts, as a list.
func texts(v any) []string {
	list, ok := v.([]any)
	if !ok {
		list = []any{v}
	}
	out := make([]string, len(list))
	for i, one := range list {
		out[i], _ = one.(string)
	}
	return out
}

func decodeProperties(d *json.Decoder) (properties, error) {
	var out properties
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		r, err := decodeRule(d)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", name, err)
		}
		out = append(out, property{fmt.Sprint(name), r})
	}
	_, err := d.Token()
	return out, err
}
