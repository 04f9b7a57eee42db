"""谁可以做什么：页面上的中文。"""

ACCESS = {
    "no_cookie": "此浏览器未保存本站的 Cookie，刷新页面后你将看不到这次运行。",
    "work_others": "其他运行",
    "lost_at_restart": "此 Space 重启或休眠后，训练结果和投票都会丢失：请挂载存储卷，或设置 SFTDEMO_BACKUP_REPO。",
    "sign_in": "登录",
    "sign_out": "退出登录",
    "sign_in_title": "以所有者身份登录",
    "sign_in_password": "密码",
    "sign_in_account": "用 Hub 账号登录",
    "sign_in_none": "此应用没有设置密码，也不能用账号登录。",
    "sign_in_back": "返回应用",
}

FAULTS = {
    "This app can't be used from here.": "不能从这里使用此应用。",
    "Only the owner of this app may chat; sign in as its owner.": "只有此应用的所有者可以对话；请以所有者身份登录。",
    "Only the owner of this app may share chats; sign in as its owner.": "只有此应用的所有者可以分享对话；请以所有者身份登录。",
    "Only the owner of this app may vote; sign in as its owner.": "只有此应用的所有者可以投票；请以所有者身份登录。",
    "Only the owner of this app may evaluate; sign in as its owner.": "只有此应用的所有者可以评测；请以所有者身份登录。",
    "Only the owner of this app may train; sign in as its owner.": "只有此应用的所有者可以训练；请以所有者身份登录。",
    "Only the owner of this app may upload data; sign in as its owner.": "只有此应用的所有者可以上传数据；请以所有者身份登录。",
    "Only the owner of this app may do that; sign in as its owner.": "只有此应用的所有者可以这样做；请以所有者身份登录。",
    "SFTDEMO_PROXIES names {proxy!r}, which is no address and no network; write them like 10.1.2.3,172.30.0.0/24.": (
        "SFTDEMO_PROXIES 中的 {proxy!r} 既不是地址也不是网段；请写成 10.1.2.3,172.30.0.0/24 这样的形式。"
    ),
    "What was sent came too slowly; try again.": "发送得太慢；请重试。",
    "This app doesn't answer under the host {host!r}; whoever runs it can allow the name by SFTDEMO_ALLOWED_HOSTS.": (
        "此应用不接受主机名 {host!r}；此应用的运行者可用 SFTDEMO_ALLOWED_HOSTS 允许它。"
    ),
    "Pages of {origin!r} can't use this app; open it in a tab of its own.": "{origin!r} 的页面不能使用此应用；请在单独的标签页中打开。",
    "Pages of other sites can't use this app; open it in a tab of its own.": "其他网站的页面不能使用此应用；请在单独的标签页中打开。",
    "Too many wrong passwords; try again in {minutes} min.": "密码错误次数过多；请在 {minutes} 分钟后重试。",
    "That isn't the password.": "密码不正确。",
    "The form is longer than {most} bytes.": "表单超过 {most} 字节。",
    "{name!r} is the name of an account; sign in to vote under it, or leave out the @.": (
        "{name!r} 是账号名；请登录后用它投票，或去掉 @。"
    ),
    "{source!r} can't be chosen here: paths and Hub ids are the owner's; take a sample, or upload a file.": (
        "不能在这里选择 {source!r}：路径和 Hub ID 只供所有者使用；请选用样例，或上传文件。"
    ),
    "{source!r} is outside the folders that may be read over the network; start the app with --allowed-folders.": (
        "{source!r} 不在允许通过网络读取的文件夹内；启动应用时请使用 --allowed-folders。"
    ),
    "tokens of answers": "个回答 token",
    "votes": "次投票",
    "evaluated rows": "行评测",
    "training steps": "个训练步",
    "minutes of training": "分钟训练",
    "uploads": "次上传",
    "changes of kept chats": "次对话保存或改动",
    "This takes {amount} {kind}, and {limit} an hour are the most here; ask for less.": (
        "这需要 {amount} {kind}，而这里每小时最多 {limit}；请减少一些。"
    ),
    "This takes {amount} {kind}, and all visitors together have {limit} an hour; try again in {minutes} min.": (
        "这需要 {amount} {kind}，而所有访客每小时共有 {limit}；请在 {minutes} 分钟后重试。"
    ),
    "This takes {amount} {kind}, and a visitor has {limit} an hour; try again in {minutes} min.": (
        "这需要 {amount} {kind}，而每位访客每小时有 {limit}；请在 {minutes} 分钟后重试。"
    ),
    "You have {n} requests waiting, the most a visitor may; wait for one of them.": (
        "你已有 {n} 个请求在等待，已达上限；请等其中一个完成。"
    ),
    "Too many requests are waiting; try again in a moment.": "等待中的请求太多；请稍后重试。",
    "Only who started it, or the owner of this app, may stop it.": "只有启动者或此应用的所有者可以停止它。",
    "What was sent doesn't fit this endpoint; see its description under the page's API link.": (
        "发送的内容不符合此接口；请查看页面 API 链接中的说明。"
    ),
    "The upload has a part that is no file; send files alone.": "上传内容中有一部分不是文件；请只发送文件。",
    "There is nothing under this address.": "此地址下没有内容。",
    "another run": "另一个运行",
    "That session isn't yours; reload the page.": "该会话不属于你；请刷新页面。",
    "Too many pages were opened from your address; try again in a few minutes.": "从你的地址打开的页面太多；请几分钟后重试。",
    "A text has more than {most} characters; send a shorter one.": "文本超过 {most} 个字符；请发送更短的文本。",
    "What was sent has more than {most}; send less at once.": "发送的内容超过 {most}；请减少一次发送的量。",
}
