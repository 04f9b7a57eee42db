"""学生模型（蒸馏、去掉层）和量化的提示。"""

FAULTS = {
    "{name} is for runs of the kind chat, and this one is {kind}; leave it out.": "{name} 只用于对话类别的运行，而这次是 {kind}；请去掉它。",
    "The model": "模型",
    "{name} is for a student; give its teacher, too.": "{name} 只用于学生模型；请同时填写“教师”。",
    "drop_layers changes the model itself, so all its weights are trained; use method full without train_only.": "去掉层会改变模型本身，因此要训练全部参数；请用方法“全参数”，不设“只训练”。",
    "Run {name} has no model to learn from; finish its training first.": "运行 {name} 没有可学习的模型；请先完成它的训练。",
    "Run {name} is of the kind {kind}; only runs of the kind chat have students.": "运行 {name} 的类别是 {kind}；只有对话类别的运行可以带学生模型。",
    "{name} is {value!r}, and a student takes its teacher's; leave it out.": "{name} 是 {value!r}，而学生沿用教师的设置；请去掉它。",
    "Run {name} was imported without its rows, which a student learns on; give a run that has them.": "运行 {name} 导入时没有带数据，而学生模型要用这些数据学习；请选择带数据的运行。",
    "The files in data/ of run {name} aren't what it was trained on; train it anew.": "运行 {name} 的 data/ 中的文件不是它训练时用的；请重新训练它。",
    "The model of {teacher}, the teacher, isn't what it was when this run began; train anew.": "教师 {teacher} 的模型已不是这次运行开始时的样子；请重新训练。",
    "Measuring the layers of {name} …": "正在测量 {name} 的各层……",
    "Layers left out: {layers} of {n}, which change the hidden states least.": "去掉的层：{n} 层中的 {layers}，它们对隐藏状态改变最小。",
    "{model} has other tokens or another chat template than run {name}, so it can't learn its probabilities; take a model of the same family, or leave out teacher.": "{model} 的 token 或对话模板与运行 {name} 不同，无法学习它的概率；请选同一系列的模型，或去掉教师。",
    "The model of {name} doesn't say how many layers it has, so none can be dropped.": "{name} 的模型没有说明层数，因此不能去掉层。",
    "drop_layers is {count}, and the model of {name} has {layers} layers; give {most} at most.": "drop_layers 是 {count}，而 {name} 的模型有 {layers} 层；最多去掉 {most} 层。",
    "Layers of this kind of model can't be left out: {reason}": "这种模型不能去掉层：{reason}",
    "Layers of this kind of model can't be left out: its config doesn't say what each of them is.": "这种模型不能去掉层：它的配置没有说明每一层是什么。",
    "Layers of a model of kind {kind} can't be left out.": "{kind} 类模型不能去掉层。",
    "Nothing gets smaller; give drop_layers, or as model a smaller one with the same tokens.": "什么也没有变小；请给出 drop_layers，或把“模型”设为 token 相同的较小模型。",
    "Which run is learned from is the owner's choice; leave out teacher.": "向哪次运行学习由所有者决定；请不要填写“教师”。",
}
