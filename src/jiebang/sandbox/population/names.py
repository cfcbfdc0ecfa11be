"""Names of people and places: surnames by their real frequency, given names by sex and generation, regions.

Surname weights are millions of bearers, rounded, after the Ministry of Public Security's annual name report (2020).
"""

from __future__ import annotations

from typing import Final


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


SURNAMES: Final = tuple(
    (name, int(weight))
    for name, weight in (
        word.split(":")
        for word in words(
            "王:1015 李:1009 张:954 刘:721 陈:633 杨:462 黄:337 赵:286 吴:278 周:268 徐:202 孙:194 马:191 朱:181 "
            "胡:165 郭:158 何:148 林:142 高:141 罗:137 郑:124 梁:119 谢:108 宋:100 唐:97 许:97 邓:93 韩:92 冯:92 曹:91 "
            "彭:88 曾:86 肖:84 田:79 董:78 潘:77 袁:73 蔡:72 蒋:71 余:70 于:68 杜:66 叶:66 程:65 魏:64 "
            "苏:62 吕:61 丁:60 任:58 卢:57 姚:55 沈:55 钟:54 姜:53 崔:52 谭:52 陆:51 范:49 汪:49 廖:47 "
            "石:46 金:46 韦:44 贾:43 夏:43 付:42 方:42 邹:41 熊:40 白:39 孟:38 秦:37 邱:37 侯:36 江:36 "
            "尹:35 薛:34 闫:33 段:32 雷:32 龙:31 黎:30 史:30 陶:29 贺:29 毛:28 郝:28 顾:27 龚:27 邵:26 "
            "万:26 覃:25 武:25 钱:25 戴:24 严:24 莫:23 孔:23 向:22 常:22 欧阳:11 上官:1 司马:1 诸葛:1"
        )
    )
)

_GIVEN: Final = (
    # (sex, generation): before 1970, 1970 to 1989, 1990 to 2009, since 2010
    (
        "秀英 桂英 秀兰 玉兰 玉梅 桂兰 淑珍 淑英 玉珍 凤英 秀珍 春梅 丽华 惠芳 月英 金凤 翠兰 素珍 爱华 建华",
        "丽 敏 静 艳 娟 霞 燕 芳 红 梅 丹 玲 萍 琴 华 丽娟 晓燕 海燕 红梅 小红 晓红 丽萍 春燕 雪梅 慧敏",
        "婷 静 雪 欣怡 婷婷 雨婷 佳怡 思雨 梦婷 晓雯 倩 颖 佳琪 诗琪 梦瑶 雅婷 静怡 文静 欣 璐 悦 雨欣 子涵 雪莹",
        "一诺 依诺 欣怡 梓涵 诗涵 梓萱 子萱 可馨 若汐 语桐 沐妍 雨桐 梓琪 芊羽 思语 艺涵 佳一 若溪 清妍 书瑶",
    ),
    (
        "建国 建军 国强 志强 建华 玉林 志明 德明 国华 福生 金山 文学 永福 长生 保国 卫东 援朝 国庆 世杰 洪波",
        "伟 强 勇 军 杰 涛 磊 超 明 刚 平 辉 鹏 波 斌 建军 志强 海涛 志刚 文辉 俊杰 晓东 永强 立新 国栋",
        "浩 宇 杰 鑫 帅 凯 俊杰 浩然 子豪 嘉豪 天宇 文博 志远 宇航 家豪 晨 博文 子轩 明轩 泽宇 一鸣 俊豪 宇轩 思远",
        "浩宇 宇轩 梓睿 沐宸 浩然 奕辰 宇辰 子墨 沐阳 梓豪 俊熙 亦辰 景行 知远 泽楷 一辰 星睿 梓轩 嘉懿 修远",
    ),
)
GIVEN: Final = tuple(tuple(tuple(words.split()) for words in sexes) for sexes in _GIVEN)
"""Given names by sex (0 female, 1 male) and generation (0 to 3)."""

GENERATION_ENDS: Final = (1970, 1990, 2010)
"""The birth years at which the next generation of given names begins."""

FOREIGN_GIVEN: Final = (
    words("EMMA OLIVIA MARIA YUKI SAKURA MINJI ANNA SOPHIE CHLOE LINH FATIMA PRIYA ELENA LAURA GRACE"),
    words("JAMES DANIEL HIROSHI KENJI MINHO THOMAS LUCAS AHMED RAVI IVAN PIERRE OLIVER NGUYEN ERIC DAVID"),
)
FOREIGN_SURNAMES: Final = words(
    "SMITH JOHNSON TANAKA SATO KIM PARK LEE MULLER DUBOIS ROSSI IVANOV SINGH TRAN BROWN WILSON GARCIA SILVA"
)
NATIONS: Final = (
    ("USA", "840"),
    ("JPN", "392"),
    ("KOR", "410"),
    ("GBR", "826"),
    ("FRA", "250"),
    ("DEU", "276"),
    ("CAN", "124"),
    ("AUS", "036"),
    ("SGP", "702"),
    ("MYS", "458"),
    ("RUS", "643"),
    ("IND", "356"),
    ("VNM", "704"),
    ("THA", "764"),
)
"""ISO 3166 alpha-3 and numeric codes of the foreigners' countries."""

REGIONS: Final = tuple(
    (word.split(":")[0], word.split(":")[1])
    for word in words(
        "110101:北京 110105:北京 110108:北京 120101:天津 120103:天津 130102:石家庄 130203:唐山 130602:保定 140105:太原 "
        "150102:呼和浩特 210102:沈阳 210202:大连 220102:长春 230102:哈尔滨 310101:上海 310104:上海 310115:上海 "
        "320102:南京 320106:南京 320205:无锡 320505:苏州 320602:南通 330102:杭州 330106:杭州 330203:宁波 330302:温州 "
        "340104:合肥 340202:芜湖 350102:福州 350203:厦门 350502:泉州 360102:南昌 360702:赣州 370102:济南 370202:青岛 "
        "370602:烟台 370702:潍坊 371302:临沂 410102:郑州 410105:郑州 410302:洛阳 411302:南阳 420102:武汉 420106:武汉 "
        "420502:宜昌 430102:长沙 430405:衡阳 440103:广州 440106:广州 440303:深圳 440305:深圳 440402:珠海 440604:佛山 "
        "440902:茂名 450102:南宁 450302:桂林 460105:海口 500103:重庆 500112:重庆 510104:成都 510107:成都 "
        "510703:绵阳 520102:贵阳 "
        "520302:遵义 530102:昆明 540102:拉萨 610102:西安 610113:西安 620102:兰州 630102:西宁 640104:银川 "
        "650102:乌鲁木齐"
    )
)
"""Six-digit region codes (GB/T 2260) and their cities."""

TERRITORIES: Final = (("810000", "HKG"), ("820000", "MAC"), ("830000", "TWN"))
