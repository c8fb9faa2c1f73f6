"""Writes src/preheat/models/minilm.onnx: the computation of all-MiniLM-L6-v2 without its weights.

Needs the `onnx` package, which the product does not. Run: python tools/build_minilm_onnx.py
Weights are initializers with external data; `preheat.models.minilm` hands them over under the same names. Matrices are
(in, out); `position` already contains the first token-type embedding; `qkv` is query, key and value side by side.
Operators of the domain com.microsoft are onnxruntime's fused transformer kernels.
"""

import sys
from pathlib import Path

from onnx import ModelProto, TensorProto, helper, save

LAYERS, WIDTH, INNER, HEADS, VOCABULARY, POSITIONS, EPSILON = 6, 384, 1_536, 12, 30_522, 512, 1e-12
FUSED = "com.microsoft"


def weight(name: str, *shape: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights")
    return tensor


def layer(index: int, source: str) -> tuple[list, list]:
    """Nodes and weights of one encoder layer; its result is `layer{index}`."""
    p = f"{index}."
    weights = [
        weight(p + "qkv.weight", WIDTH, 3 * WIDTH),
        weight(p + "qkv.bias", 3 * WIDTH),
        weight(p + "output.weight", WIDTH, WIDTH),
        weight(p + "output.bias", WIDTH),
        weight(p + "norm1.weight", WIDTH),
        weight(p + "norm1.bias", WIDTH),
        weight(p + "up.weight", WIDTH, INNER),
        weight(p + "up.bias", INNER),
        weight(p + "down.weight", INNER, WIDTH),
        weight(p + "down.bias", WIDTH),
        weight(p + "norm2.weight", WIDTH),
        weight(p + "norm2.bias", WIDTH),
    ]

    def norm(inputs: list[str], output: str):
        return helper.make_node("SkipLayerNormalization", inputs, [output], domain=FUSED, epsilon=EPSILON)

    attended = [source, p + "qkv.weight", p + "qkv.bias", "mask"]
    nodes = [
        helper.make_node("Attention", attended, [p + "mixed"], domain=FUSED, num_heads=HEADS),
        helper.make_node("MatMul", [p + "mixed", p + "output.weight"], [p + "attended"]),
        norm([p + "attended", source, p + "norm1.weight", p + "norm1.bias", p + "output.bias"], p + "middle"),
        helper.make_node("MatMul", [p + "middle", p + "up.weight"], [p + "raised"]),
        helper.make_node("BiasGelu", [p + "raised", p + "up.bias"], [p + "active"], domain=FUSED),
        helper.make_node("MatMul", [p + "active", p + "down.weight"], [p + "lowered"]),
        norm([p + "lowered", p + "middle", p + "norm2.weight", p + "norm2.bias", p + "down.bias"], f"layer{index}"),
    ]
    return nodes, weights


def build() -> ModelProto:
    weights = [
        weight("word", VOCABULARY, WIDTH),
        weight("position", POSITIONS, WIDTH),
        weight("norm.weight", WIDTH),
        weight("norm.bias", WIDTH),
    ]
    nodes = [
        helper.make_node(
            "EmbedLayerNormalization",
            ["ids", "", "word", "position", "", "norm.weight", "norm.bias", "mask"],
            ["embedded", "lengths"],
            domain=FUSED,
            epsilon=EPSILON,
        )
    ]
    source = "embedded"
    for index in range(LAYERS):
        more, its = layer(index, source)
        nodes += more
        weights += its
        source = f"layer{index}"
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT32, ["batch", "tokens"]) for name in ("ids", "mask")]
    output = helper.make_tensor_value_info(source, TensorProto.FLOAT, ["batch", "tokens", WIDTH])
    graph = helper.make_graph(nodes, "all-MiniLM-L6-v2", inputs, [output], initializer=weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="preheat")


def main() -> None:
    default = Path(__file__).parents[1] / "src" / "preheat" / "models" / "minilm.onnx"
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    model = build()
    save(model, str(target))


if __name__ == "__main__":
    main()
